//! Charts as inline SVG. Colours and line styles are classes, which the page's or the file's style sheet holds.

pub(super) mod bars;
pub(super) mod label;
pub(super) mod lines;
pub(super) mod scale;

use std::fmt::Write;

use maud::{Markup, PreEscaped, html};

use super::peer::Family;

/// The drawing without its margins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Frame {
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) left: f64,
    pub(super) right: f64,
    pub(super) top: f64,
    pub(super) bottom: f64,
}

impl Frame {
    /// From a share of the width.
    fn x(&self, share: f64) -> f64 {
        self.left + share * (self.width - self.left - self.right)
    }

    /// From a share of the height, counted upwards.
    fn y(&self, share: f64) -> f64 {
        self.height - self.bottom - share * (self.height - self.top - self.bottom)
    }
}

/// A coordinate: a tenth of a pixel is enough.
fn at(value: f64) -> String {
    let text = format!("{value:.1}");
    text.strip_suffix(".0").map(str::to_owned).unwrap_or(text)
}

/// Around all charts: the size, what it shows for those who do not see it.
fn svg(frame: Frame, title: &str, about: &str, inside: &Markup) -> Markup {
    html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox=(format!("0 0 {} {}", at(frame.width), at(frame.height)))
            role="img" aria-label=(format!("{title}. {about}")) {
            (inside)
        }
    }
}

/// The same as a file of its own, readable on a white and on a dark page.
pub(super) fn file(frame: Frame, title: &str, about: &str, inside: &Markup) -> String {
    let style = format!(
        "text{{font:12px system-ui,-apple-system,'Segoe UI',sans-serif;fill:#768390}}.h{{font-size:15px;font-weight:600}}{}{}",
        style("#76839055", "#768390"),
        ".name{font-weight:600}"
    );
    html! {
        svg xmlns="http://www.w3.org/2000/svg" viewBox=(format!("0 0 {} {}", at(frame.width), at(frame.height)))
            width=(at(frame.width)) height=(at(frame.height)) role="img" aria-label=(format!("{title}. {about}")) {
            title { (title) }
            style { (PreEscaped(style)) }
            (inside)
        }
    }
    .into_string()
}

/// The style sheet of everything drawn here.
pub(super) fn style(grid: &str, axis: &str) -> String {
    let mut css = format!(
        ".grid{{stroke:{grid};stroke-width:1}}.axis{{stroke:{axis};stroke-width:1}}\
         .rule{{fill:none;stroke:{axis};stroke-width:1.2;stroke-dasharray:2 3}}\
         .line{{fill:none;stroke-width:1.6;stroke-linejoin:round;stroke-linecap:round}}.line.qg{{stroke-width:3}}\
         .dash{{stroke-dasharray:5 3}}.dots{{stroke-dasharray:1 4}}.hit{{fill:none;stroke:#000;stroke-opacity:0;stroke-width:10}}\
         .leader{{stroke-width:.7;fill:none;stroke-dasharray:none;opacity:.6}}.mark{{stroke:none}}.mid{{text-anchor:middle}}\
         .end{{text-anchor:end}}.bad{{fill:#d1242f}}"
    );
    for family in Family::ALL {
        let (class, colour) = (family.class(), family.colour());
        write!(
            css,
            ".line.{class},.leader.{class},.whisker.{class}{{stroke:{colour}}}\
             .mark.{class},.name.{class}{{fill:{colour}}}"
        )
        .expect("a string takes every text");
    }
    css
}
