//! Lines over an axis, one for each peer.

use maud::{Markup, html};

use super::label::{cut, spread};
use super::scale::Scale;
use super::{Frame, at, svg};
use crate::compare::report::peer::{Family, classes};

const LABELS_APART: f64 = 13.0;
const NAME_CHARS: usize = 20;

/// An axis.
#[derive(Debug)]
pub(in crate::compare::report) struct Axis {
    /// With the unit.
    pub(in crate::compare::report) title: &'static str,
    pub(in crate::compare::report) scale: Scale,
}

/// One peer's line.
#[derive(Debug)]
pub(in crate::compare::report) struct Line<'a> {
    pub(in crate::compare::report) peer: &'a str,
    /// A gap where nothing was measured.
    pub(in crate::compare::report) points: Vec<Option<Point>>,
    /// What it says under the pointer.
    pub(in crate::compare::report) tip: String,
}

/// A point of a line.
#[derive(Debug)]
pub(in crate::compare::report) struct Point {
    pub(in crate::compare::report) x: f64,
    pub(in crate::compare::report) y: f64,
    /// Least and largest of several rounds.
    pub(in crate::compare::report) range: Option<(f64, f64)>,
    /// What it says under the pointer; none: it has no mark.
    pub(in crate::compare::report) tip: Option<String>,
}

/// A line that is no peer's: a target, or a limit.
#[derive(Debug)]
pub(in crate::compare::report) struct Rule {
    pub(in crate::compare::report) points: Vec<(f64, f64)>,
    pub(in crate::compare::report) name: String,
}

/// A chart.
#[derive(Debug)]
pub(in crate::compare::report) struct Chart<'a> {
    pub(in crate::compare::report) frame: Frame,
    pub(in crate::compare::report) title: String,
    pub(in crate::compare::report) x: Axis,
    pub(in crate::compare::report) y: Axis,
    pub(in crate::compare::report) rules: Vec<Rule>,
    pub(in crate::compare::report) lines: Vec<Line<'a>>,
    /// Names at the ends of the lines.
    pub(in crate::compare::report) named: bool,
}

impl Chart<'_> {
    /// As a part of a page.
    pub(in crate::compare::report) fn draw(&self) -> Markup {
        svg(self.frame, &self.title, &self.about(), &self.inside(false))
    }

    /// As a file of its own.
    pub(in crate::compare::report) fn file(&self) -> String {
        super::file(self.frame, &self.title, &self.about(), &self.inside(true))
    }

    fn about(&self) -> String {
        let lines: Vec<&str> = self.lines.iter().map(|line| line.tip.as_str()).collect();
        format!("{} by {}. {}", self.y.title, self.x.title, lines.join("; "))
    }

    fn inside(&self, titled: bool) -> Markup {
        html! {
            @if titled { text class="h" x=(at(self.frame.left)) y="22" { (self.title) } }
            (self.grid())
            @for rule in &self.rules { (self.rule(rule)) }
            // Ours is drawn last: above all others.
            @for line in self.lines.iter().rev() { (self.line(line)) }
            @if self.named { (self.names()) }
            @if self.lines.iter().all(|line| line.points.iter().all(Option::is_none)) {
                text class="mid" x=(at(self.frame.x(0.5))) y=(at(self.frame.y(0.5))) { "not measured" }
            }
        }
    }

    fn grid(&self) -> Markup {
        let frame = self.frame;
        let (left, right, floor) = (frame.x(0.0), frame.x(1.0), frame.y(0.0));
        let of = |axis: &Axis| -> Vec<(f64, String)> {
            let ticks = axis.scale.ticks().into_iter();
            ticks.filter_map(|(value, text)| Some((axis.scale.share(value)?, text))).collect()
        };
        html! {
            @for (share, text) in of(&self.y) {
                line class="grid" x1=(at(left)) x2=(at(right)) y1=(at(frame.y(share))) y2=(at(frame.y(share))) {}
                text class="end" x=(at(left - 6.0)) y=(at(frame.y(share) + 4.0)) { (text) }
            }
            @for (share, text) in of(&self.x) {
                line class="axis" x1=(at(frame.x(share))) x2=(at(frame.x(share))) y1=(at(floor)) y2=(at(floor + 4.0)) {}
                text class="mid" x=(at(frame.x(share))) y=(at(floor + 17.0)) { (text) }
            }
            line class="axis" x1=(at(left)) x2=(at(right)) y1=(at(floor)) y2=(at(floor)) {}
            text class="mid" x=(at(frame.x(0.5))) y=(at(frame.height - 4.0)) { (self.x.title) }
            text class="mid" x="11" y=(at(frame.y(0.5))) transform=(format!("rotate(-90 11 {})", at(frame.y(0.5)))) {
                (self.y.title)
            }
        }
    }

    fn place(&self, x: f64, y: f64) -> Option<(f64, f64)> {
        Some((self.frame.x(self.x.scale.share(x)?), self.frame.y(self.y.scale.share(y)?)))
    }

    fn rule(&self, rule: &Rule) -> Markup {
        let places: Vec<(f64, f64)> = rule.points.iter().filter_map(|(x, y)| self.place(*x, *y)).collect();
        html! { path class="rule" d=(path(places.into_iter().map(Some))) { title { (rule.name) } } }
    }

    fn line(&self, line: &Line<'_>) -> Markup {
        let place = |point: &Option<Point>| point.as_ref().and_then(|point| self.place(point.x, point.y));
        let path = path(line.points.iter().map(place));
        let family = Family::of(line.peer);
        let classes = classes(line.peer);
        html! {
            @if !path.is_empty() {
                path class=(format!("line {classes}")) d=(path) {}
                path class="hit" d=(path) { title { (line.tip) } }
            }
            @for point in line.points.iter().flatten() {
                @if let Some((x, y)) = self.place(point.x, point.y) {
                    @if let Some((low, high)) = self.whisker(point) {
                        line class=(format!("whisker {}", family.class())) x1=(at(x)) x2=(at(x)) y1=(at(low)) y2=(at(high)) {}
                    }
                    @if let Some(tip) = &point.tip { (mark(family, (x, y), tip)) }
                }
            }
        }
    }

    /// From the least to the largest of several rounds, if it would be seen.
    fn whisker(&self, point: &Point) -> Option<(f64, f64)> {
        let (low, high) = point.range?;
        let (low, high) = (self.place(point.x, low)?.1, self.place(point.x, high)?.1);
        (low - high > 3.0).then_some((low, high))
    }

    /// The names at the right, each at the height of its line's end.
    fn names(&self) -> Markup {
        let ends: Vec<(&str, (f64, f64))> = self
            .lines
            .iter()
            .filter_map(|line| {
                let last = line.points.iter().flatten().next_back()?;
                Some((line.peer, self.place(last.x, last.y)?))
            })
            .collect();
        let wanted: Vec<f64> = ends.iter().map(|(_, (_, y))| *y).collect();
        let Some(placed) = spread(&wanted, LABELS_APART, (self.frame.y(1.0), self.frame.y(0.0))) else {
            return html! {};
        };
        let right = self.frame.x(1.0);
        html! {
            @for ((peer, (x, y)), name_y) in ends.iter().zip(placed) {
                @let class = Family::of(peer).class();
                path class=(format!("leader {class}"))
                    d=(format!("M{} {}L{} {}L{} {}", at(x + 5.0), at(*y), at(right + 2.0), at(*y), at(right + 12.0), at(name_y))) {}
                text class=(format!("name {class}")) x=(at(right + 15.0)) y=(at(name_y + 4.0)) { (cut(peer, NAME_CHARS)) }
            }
        }
    }
}

/// Moves at the start and after each gap, lines between.
fn path(places: impl Iterator<Item = Option<(f64, f64)>>) -> String {
    let mut path = String::new();
    let mut drawing = false;
    for place in places {
        if let Some((x, y)) = place {
            path.push(if drawing { 'L' } else { 'M' });
            path.extend([at(x), " ".to_owned(), at(y)]);
        }
        drawing = place.is_some();
    }
    path
}

/// Families differ in their marks too, for those who do not see their colours apart.
fn mark(family: Family, (x, y): (f64, f64), tip: &str) -> Markup {
    let class = format!("mark {}", family.class());
    let shape = |size: f64, corners: &[(f64, f64)]| {
        let corners = corners.iter().map(|(right, down)| format!("{},{}", at(x + right * size), at(y + down * size)));
        corners.collect::<Vec<_>>().join(" ")
    };
    html! {
        @match family {
            Family::QuantumGrpc => circle class=(class) cx=(at(x)) cy=(at(y)) r="4.5" { title { (tip) } },
            Family::TcpGrpc => polygon class=(class) points=(shape(3.6, &[(-1., -1.), (1., -1.), (1., 1.), (-1., 1.)])) {
                title { (tip) }
            },
            Family::Quinn => polygon class=(class) points=(shape(5.0, &[(0., -1.), (1., 0.), (0., 1.), (-1., 0.)])) {
                title { (tip) }
            },
            Family::Tcp => polygon class=(class) points=(shape(4.4, &[(0., -1.), (1., 0.9), (-1., 0.9)])) { title { (tip) } },
            Family::S2n => polygon class=(class) points=(shape(4.4, &[(0., 1.), (1., -0.9), (-1., -0.9)])) { title { (tip) } },
            _ => circle class=(class) cx=(at(x)) cy=(at(y)) r="3" { title { (tip) } },
        }
    }
}
