//! Files, functions, structs and argument lists are short.

use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};
use syn::{Block, Fields, ImplItemFn, ItemFn, ItemStruct, Signature, TraitItemFn, Variant};

use crate::source::{Source, Violation};

const FILE_LINES_MAX: usize = 500;
const FUNCTION_LINES_MAX: usize = 70;
const STRUCT_FIELDS_MAX: usize = 15;
/// `self` is not counted.
const ARGUMENTS_MAX: usize = 5;
/// Documents and configuration may be longer than code.
const CODE: [&str; 7] = ["rs", "proto", "py", "sh", "ts", "js", "css"];

pub(crate) fn check(source: &Source) -> Vec<Violation> {
    let mut sizes = Sizes { source, found: Vec::new() };
    let lines = source.text.lines().count();
    if CODE.contains(&source.kind()) && lines > FILE_LINES_MAX {
        sizes.found.push(source.violation(0, format!("a file of {lines} lines; {FILE_LINES_MAX} at most")));
    }
    sizes.visit_file(&source.syntax());
    sizes.found
}

struct Sizes<'a> {
    source: &'a Source,
    found: Vec<Violation>,
}

impl Sizes<'_> {
    fn report(&mut self, at: Span, message: String) {
        self.found.push(self.source.violation(at.start().line, message));
    }

    /// Counts from the line of the name to that of the closing brace; attributes and documentation are free.
    fn function(&mut self, signature: &Signature, body: Option<&Block>) {
        let name = &signature.ident;
        if let Some(body) = body {
            let lines = body.span().end().line + 1 - signature.span().start().line;
            if lines > FUNCTION_LINES_MAX {
                let message = format!("`{name}` has {lines} lines; {FUNCTION_LINES_MAX} at most");
                self.report(name.span(), message);
            }
        }
        let arguments = signature.inputs.len() - usize::from(signature.receiver().is_some());
        if arguments > ARGUMENTS_MAX {
            let message = format!("`{name}` takes {arguments} arguments; {ARGUMENTS_MAX} at most");
            self.report(name.span(), message);
        }
    }

    fn fields(&mut self, name: &syn::Ident, fields: &Fields) {
        if fields.len() > STRUCT_FIELDS_MAX {
            let message = format!("`{name}` has {} fields; {STRUCT_FIELDS_MAX} at most", fields.len());
            self.report(name.span(), message);
        }
    }
}

impl<'ast> Visit<'ast> for Sizes<'_> {
    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.function(&item.sig, Some(&item.block));
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        self.function(&item.sig, Some(&item.block));
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        self.function(&item.sig, item.default.as_ref());
        visit::visit_trait_item_fn(self, item);
    }

    fn visit_item_struct(&mut self, item: &'ast ItemStruct) {
        self.fields(&item.ident, &item.fields);
        visit::visit_item_struct(self, item);
    }

    fn visit_variant(&mut self, variant: &'ast Variant) {
        self.fields(&variant.ident, &variant.fields);
        visit::visit_variant(self, variant);
    }
}

fn found(text: String) -> usize {
    check(&Source::new("bad.rs", text)).len()
}

#[test]
fn a_file_of_501_lines_is_found() {
    assert_eq!((found("\n".repeat(500)), found("\n".repeat(501))), (0, 1));
    assert_eq!(check(&Source::new("words.md", "\n".repeat(501))).len(), 0);
}

#[test]
fn a_function_of_71_lines_is_found_wherever_it_stands() {
    for around in [("", ""), ("struct S; impl S {", "}"), ("trait T {", "}"), ("fn out() {", "}"), ("mod m {", "}")] {
        let of = |lines: usize| format!("{}\nfn long() {{{}}}\n{}", around.0, "\n".repeat(lines - 1), around.1);
        let outer = usize::from(around.0.starts_with("fn"));
        assert_eq!((found(of(67)), found(of(71))), (0, 1 + outer), "{around:?}");
    }
}

#[test]
fn a_struct_of_16_fields_and_a_function_of_6_arguments_are_found() {
    let fields = |count: usize| "f: u8,".repeat(count);
    assert_eq!((found(format!("struct S {{{}}}", fields(15))), found(format!("struct S {{{}}}", fields(16)))), (0, 1));
    assert_eq!(found(format!("enum E {{ V {{{}}} }}", fields(16))), 1);
    assert_eq!((found(format!("fn f({}) {{}}", fields(5))), found(format!("fn f({}) {{}}", fields(6)))), (0, 1));
    assert_eq!(found(format!("impl S {{ fn f(&self, {}) {{}} }}", fields(5))), 0);
}
