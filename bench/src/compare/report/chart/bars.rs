//! Bars from the left, one row each.

use maud::{Markup, html};

use super::label::cut;
use super::scale::Scale;
use super::{Frame, at, svg};
use crate::compare::report::peer::Family;

const ROW: f64 = 26.0;
const THICK: f64 = 15.0;
const NAME_CHARS: usize = 21;
const SAID_CHARS: usize = 34;

/// One row.
#[derive(Debug)]
pub(in crate::compare::report) struct Bar {
    pub(in crate::compare::report) name: String,
    /// Peer, value and tip, one after the other.
    pub(in crate::compare::report) parts: Vec<(String, f64, String)>,
    /// Behind the bar: its figure, or why there is none.
    pub(in crate::compare::report) said: String,
    /// There is no figure.
    pub(in crate::compare::report) failed: bool,
}

/// A chart of bars.
#[derive(Debug)]
pub(in crate::compare::report) struct Bars {
    pub(in crate::compare::report) title: String,
    /// With the unit.
    pub(in crate::compare::report) axis: &'static str,
    pub(in crate::compare::report) rows: Vec<Bar>,
    /// Room for what is said behind the bars, in pixels.
    pub(in crate::compare::report) said_width: f64,
}

impl Bars {
    pub(in crate::compare::report) fn draw(&self) -> Markup {
        let height = self.rows.len() as f64 * ROW + 46.0;
        let frame = Frame { width: 520.0, height, left: 138.0, right: self.said_width, top: 4.0, bottom: 42.0 };
        let sums = self.rows.iter().map(|bar| bar.parts.iter().map(|(_, value, _)| value).sum());
        let scale = Scale::linear(sums);
        let about: Vec<String> = self.rows.iter().map(|bar| format!("{}: {}", bar.name, bar.said)).collect();
        let inside = html! {
            (ticks(frame, &scale, self.axis))
            @for (nth, bar) in self.rows.iter().enumerate() {
                (row(frame, &scale, bar, frame.top + ROW * (nth as f64 + 0.5)))
            }
        };
        svg(frame, &self.title, &format!("{}. {}", self.axis, about.join("; ")), &inside)
    }
}

fn ticks(frame: Frame, scale: &Scale, title: &str) -> Markup {
    let (top, floor) = (frame.y(1.0), frame.y(0.0));
    let ticks = scale.ticks();
    // Every second one if there are many: the longest text takes some 60 pixels.
    let every = ticks.len().div_ceil(5).max(1);
    html! {
        @for (value, text) in ticks.into_iter().step_by(every) {
            @let x = frame.x(scale.share(value).unwrap_or_default());
            line class="grid" x1=(at(x)) x2=(at(x)) y1=(at(top)) y2=(at(floor)) {}
            text class="mid" x=(at(x)) y=(at(floor + 15.0)) { (text) }
        }
        text class="mid" x=(at(frame.x(0.5))) y=(at(frame.height - 6.0)) { (title) }
    }
}

fn row(frame: Frame, scale: &Scale, bar: &Bar, middle: f64) -> Markup {
    let mut from = 0.0;
    let mut parts = Vec::new();
    for (peer, value, tip) in &bar.parts {
        let (start, end) =
            (frame.x(scale.share(from).unwrap_or(0.0)), frame.x(scale.share(from + value).unwrap_or(0.0)));
        parts.push((Family::of(peer).class(), start, (end - start - 1.0).max(0.5), tip));
        from += value;
    }
    let end = frame.x(scale.share(from).unwrap_or(0.0));
    let y = middle - THICK / 2.0;
    html! {
        text class="end" x=(at(frame.left - 8.0)) y=(at(middle + 4.0)) { (cut(&bar.name, NAME_CHARS)) title { (bar.name) } }
        @for (class, start, width, tip) in parts {
            rect class=(format!("mark {class}")) x=(at(start)) y=(at(y)) width=(at(width)) height=(at(THICK)) rx="1.5" {
                title { (tip) }
            }
        }
        text class=(if bar.failed { "bad" } else { "said" }) x=(at(end + 6.0)) y=(at(middle + 4.0)) {
            (cut(&bar.said, SAID_CHARS)) title { (bar.said) }
        }
    }
}
