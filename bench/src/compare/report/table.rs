//! Tables, written as HTML and as Markdown.

use maud::{Markup, html};

/// A table with notes beneath.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) title: String,
    pub(super) head: Vec<String>,
    pub(super) rows: Vec<Vec<Entry>>,
    notes: Vec<String>,
}

/// What stands in a field.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    text: String,
    kind: Kind,
    /// Counted from 1.
    note: Option<usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Absent,
    Good,
    Bad,
}

impl Entry {
    fn new(text: impl Into<String>, kind: Kind) -> Self {
        Self { text: text.into(), kind, note: None }
    }

    pub(super) fn text(text: impl Into<String>) -> Self {
        Self::new(text, Kind::Text)
    }

    pub(super) fn number(text: impl Into<String>) -> Self {
        Self::new(text, Kind::Number)
    }

    pub(super) fn absent() -> Self {
        Self::new("not measured", Kind::Absent)
    }

    pub(super) fn good(text: impl Into<String>) -> Self {
        Self::new(text, Kind::Good)
    }

    pub(super) fn bad(text: impl Into<String>) -> Self {
        Self::new(text, Kind::Bad)
    }

    fn class(&self) -> &'static str {
        match self.kind {
            Kind::Text => "",
            Kind::Number => "n",
            Kind::Absent => "absent",
            Kind::Good => "good",
            Kind::Bad => "bad",
        }
    }
}

impl Table {
    pub(super) fn new(title: impl Into<String>, head: &[&str]) -> Self {
        let head = head.iter().map(|text| (*text).to_owned()).collect();
        Self { title: title.into(), head, rows: Vec::new(), notes: Vec::new() }
    }

    /// A field with a note; the same note is written once.
    pub(super) fn noted(&mut self, mut entry: Entry, note: Option<String>) -> Entry {
        if let Some(note) = note {
            let known = self.notes.iter().position(|known| *known == note);
            entry.note = Some(
                known.unwrap_or_else(|| {
                    self.notes.push(note);
                    self.notes.len() - 1
                }) + 1,
            );
        }
        entry
    }

    /// A field for what has no figure: `failed` with the reason as a note, or `not measured`.
    pub(super) fn lacking(&mut self, trouble: Option<String>) -> Entry {
        match trouble {
            Some(reason) => self.noted(Entry::bad("failed"), Some(reason)),
            None => Entry::absent(),
        }
    }

    pub(super) fn html(&self) -> Markup {
        html! {
            figure class="table" {
                figcaption { (self.title) }
                div class="wide" tabindex="0" {
                    table {
                        thead { tr { @for head in &self.head { th scope="col" { (head) } } } }
                        tbody {
                            @for row in &self.rows {
                                tr {
                                    @for (nth, entry) in row.iter().enumerate() {
                                        @if nth == 0 {
                                            th scope="row" { (self.field(entry)) }
                                        } @else {
                                            td class=(entry.class()) { (self.field(entry)) }
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
                @if !self.notes.is_empty() {
                    ol class="notes" { @for note in &self.notes { li { (note) } } }
                }
            }
        }
    }

    fn field(&self, entry: &Entry) -> Markup {
        html! {
            (entry.text)
            @if let Some((number, note)) = entry.note.and_then(|note| Some((note, self.notes.get(note - 1)?))) {
                sup title=(note) { (number) }
            }
        }
    }

    pub(super) fn markdown(&self) -> String {
        let mut text = format!("**{}**\n\n", escape(&self.title));
        let head: Vec<String> = self.head.iter().map(|head| escape(head)).collect();
        text.extend(["| ", &head.join(" | "), " |\n|", &"---|".repeat(head.len()), "\n"]);
        for row in &self.rows {
            let fields: Vec<String> = row.iter().map(markdown_field).collect();
            text.extend(["| ", &fields.join(" | "), " |\n"]);
        }
        for (index, note) in self.notes.iter().enumerate() {
            let before = if index == 0 { "\n" } else { "<br>\n" };
            text.extend([before, &format!("[{}] ", index + 1), &escape(note)]);
        }
        text.push('\n');
        text
    }
}

fn markdown_field(entry: &Entry) -> String {
    let text = escape(&entry.text);
    let text = if entry.kind == Kind::Bad { format!("**{text}**") } else { text };
    match entry.note {
        Some(note) => format!("{text} [{note}]"),
        None => text,
    }
}

/// Markdown takes nothing in it for markup, HTML or the end of a field.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '\\' | '|' | '`' | '*' | '_' | '[' | ']' | '#' | '~' => escaped.extend(['\\', char]),
            _ if char.is_control() => escaped.push(' '),
            _ => escaped.push(char),
        }
    }
    escaped
}
