//! Line charts as SVG. Colours are the page's (classes), so that they follow its light or dark theme.

use super::scale::{Kind, Scale, short};
use maud::{Markup, html};

/// Size of the picture, and where the axes cross, in its own units.
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 76.0;
/// Half of the longest label of the x axis stands to the right of its end.
const RIGHT: f64 = 32.0;
const TOP: f64 = 14.0;
const BOTTOM: f64 = 52.0;
/// Colours and markers that the page has.
const COLOURS: usize = 8;
const MARKERS: usize = 6;

/// An axis.
#[derive(Debug, Clone)]
pub struct Axis {
    /// What is on it, with its unit.
    pub title: &'static str,
    /// How values are spread.
    pub kind: Kind,
}

/// How a line is drawn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Line {
    /// Measured.
    Solid,
    /// Projected, not measured.
    Dashed,
    /// A reference, without marks.
    Faint,
}

/// One curve.
#[derive(Debug, Clone)]
pub struct Series {
    /// Its name.
    pub name: String,
    /// Number of its colour.
    pub colour: usize,
    /// Number of its mark.
    pub marker: usize,
    /// How it is drawn.
    pub line: Line,
    /// Its points.
    pub points: Vec<(f64, f64)>,
}

/// A chart.
#[derive(Debug, Clone)]
pub struct Chart {
    /// What it shows.
    pub title: String,
    /// What a reader must know to read it.
    pub note: String,
    /// Across.
    pub x: Axis,
    /// Up.
    pub y: Axis,
    /// The curves.
    pub series: Vec<Series>,
}

/// A mark at a place.
fn mark(marker: usize, x: f64, y: f64) -> Markup {
    let d = match marker % MARKERS {
        0 => return html! { circle.mark cx=(px(x)) cy=(px(y)) r="4" {} },
        1 => format!("M{} {}h8v8h-8z", px(x - 4.0), px(y - 4.0)),
        2 => format!("M{} {}l5 9h-10z", px(x), px(y - 5.5)),
        3 => format!("M{} {}l5 5l-5 5l-5 -5z", px(x), px(y - 5.0)),
        4 => format!("M{} {}l5 -9h-10z", px(x), px(y + 5.5)),
        _ => format!("M{} {}h3v-3h3v3h3v3h-3v3h-3v-3h-3z", px(x - 4.5), px(y - 1.5)),
    };
    html! { path.mark d=(d) {} }
}

/// A coordinate, to a tenth.
fn px(v: f64) -> String {
    format!("{v:.1}")
}

impl Series {
    fn class(&self) -> String {
        let line = match self.line {
            Line::Solid => "solid",
            Line::Dashed => "dashed",
            Line::Faint => "faint",
        };
        format!("s c{} {line}", self.colour % COLOURS)
    }
}

impl Chart {
    fn scales(&self) -> (Scale, Scale) {
        let all = || self.series.iter().flat_map(|s| &s.points);
        (Scale::new(self.x.kind, all().map(|p| p.0)), Scale::new(self.y.kind, all().map(|p| p.1)))
    }

    /// The chart, with title, legend and note.
    #[must_use]
    pub fn figure(&self) -> Markup {
        html! {
            figure {
                figcaption { (self.title) }
                (self.svg())
                ul.legend {
                    @for series in &self.series {
                        li {
                            svg.key viewBox="0 0 34 14" aria-hidden="true" {
                                g class=(series.class()) {
                                    path.line d="M1 7h32" {}
                                    @if series.line != Line::Faint { (mark(series.marker, 17.0, 7.0)) }
                                }
                            }
                            (series.name)
                        }
                    }
                }
                @if !self.note.is_empty() { p.note { (self.note) } }
            }
        }
    }

    fn svg(&self) -> Markup {
        let (x, y) = self.scales();
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let across = |v: f64| x.place(v).map(|p| LEFT + p * (right - LEFT));
        let up = |v: f64| y.place(v).map(|p| bottom - p * (bottom - TOP));
        html! {
            svg.chart viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(self.title) {
                @for (tick, at) in y.ticks.iter().filter_map(|t| Some((t, up(*t)?))) {
                    path.grid d=(format!("M{LEFT} {}H{right}", px(at))) {}
                    text.tick x=(px(LEFT - 8.0)) y=(px(at + 4.0)) text-anchor="end" { (short(*tick)) }
                }
                @for (tick, at) in x.ticks.iter().filter_map(|t| Some((t, across(*t)?))) {
                    path.grid d=(format!("M{} {TOP}V{}", px(at), px(bottom + 5.0))) {}
                    text.tick x=(px(at)) y=(px(bottom + 20.0)) text-anchor="middle" { (short(*tick)) }
                }
                path.axis d=(format!("M{LEFT} {TOP}V{bottom}H{right}")) {}
                text.title x=(px((LEFT + right) / 2.0)) y=(px(HEIGHT - 8.0)) text-anchor="middle" { (self.x.title) }
                text.title transform=(format!("translate(16 {}) rotate(-90)", px((TOP + bottom) / 2.0))) text-anchor="middle" {
                    (self.y.title)
                }
                @for series in &self.series {
                    @let places: Vec<_> = series.points.iter()
                        .filter_map(|p| Some((p, across(p.0)?, up(p.1)?))).collect();
                    g class=(series.class()) {
                        @let line: Vec<_> = places.iter().map(|(_, x, y)| format!("{} {}", px(*x), px(*y))).collect();
                        @if line.len() > 1 { path.line d=(format!("M{}", line.join("L"))) {} }
                        @if series.line != Line::Faint {
                            @for (point, x, y) in &places {
                                g {
                                    title { (format!("{}: {} → {}", series.name, short(point.0), short(point.1))) }
                                    (mark(series.marker, *x, *y))
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(points: Vec<(f64, f64)>) -> Chart {
        let axis = |title, kind| Axis { title, kind };
        let series = Series { name: "a <b>".into(), colour: 1, marker: 2, line: Line::Solid, points };
        Chart {
            title: "T & U".into(),
            note: String::new(),
            x: axis("x, s", Kind::Linear),
            y: axis("y, ms", Kind::Log),
            series: vec![series],
        }
    }

    #[test]
    fn a_mark_a_point_and_names_escaped() {
        let text = chart(vec![(1.0, 1.0), (2.0, 10.0), (3.0, 0.0)]).figure().into_string();
        // One in the legend; 0 has no place on a logarithmic axis.
        assert_eq!(text.matches("class=\"mark\"").count(), 3, "{text}");
        assert!(text.contains("a &lt;b&gt;") && text.contains("T &amp; U") && !text.contains("<b>"));
        assert!(text.contains("x, s") && text.contains("y, ms"));
    }

    #[test]
    fn coordinates_stay_in_the_picture() {
        for points in [vec![], vec![(5.0, 5.0)], vec![(f64::NAN, 1.0), (1e9, 1e-6), (2.0, 1e12)]] {
            let text = chart(points).figure().into_string();
            assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        }
    }
}
