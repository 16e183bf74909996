//! Draws plots as SVG: lines over time, percentile curves and bars.
//!
//! Colours are placeholders that become variables of the style sheet, so that a drawing suits light
//! and dark pages. The drawing library does not know the size of letters without a font; therefore
//! axes and labels are placed here, and the browser aligns all text.

use std::fmt;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::report::axis::Axis;
use crate::report::text;

/// The drawing library has integer positions. This many of them are one unit here, so that curves
/// have no steps.
const FINENESS: f64 = 4.0;

/// Width of every plot.
const WIDTH: f64 = 860.0;

/// Height of line plots.
const LINES_HEIGHT: f64 = 320.0;

/// Subjects with colours of their own; further ones reuse them.
pub(crate) const COLOURS: usize = 5;

/// The colour of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ink {
    /// Text and axes.
    Text,
    /// Grid lines.
    Grid,
    /// The colour of a subject.
    Subject(usize),
    /// The floor is grey, because it is not a competitor.
    Floor,
}

/// The identification of a plot in the page.
#[derive(Debug, Clone)]
pub(crate) struct Heading {
    pub(crate) id: String,
    /// `rates`, `percentiles`, `bars` or `cpu`.
    pub(crate) kind: &'static str,
    /// One sentence, also for readers who cannot see the plot.
    pub(crate) title: String,
}

/// One line of one run.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    pub(crate) ink: Ink,
    /// Whether it represents the others.
    pub(crate) is_main: bool,
    pub(crate) points: Vec<(f64, f64)>,
}

/// A group of bars.
#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub(crate) label: String,
    pub(crate) bars: Vec<Bar>,
}

/// One bar.
#[derive(Debug, Clone)]
pub(crate) struct Bar {
    pub(crate) ink: Ink,
    pub(crate) value: f64,
    /// The text at its end.
    pub(crate) text: String,
}

/// The origin of bars.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// At 1 ×, on a logarithmic axis: more than the base to the right, less to the left.
    One,
    /// At 0.
    Zero,
}

/// Rates over time: seconds on the x-axis, messages/s on the y-axis.
pub(crate) fn rates(heading: &Heading, lines: &[Line], is_log: bool) -> Result<String, fmt::Error> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let end_s = points().map(|point| point.0).fold(1e-3, f64::max);
    let highest = points().map(|point| point.1).fold(1.0, f64::max);
    let typical = |line: &Line| line.points.iter().map(|point| point.1).fold(0.0, f64::max);
    let lowest = lines.iter().map(typical).filter(|peak| *peak > 0.0).fold(highest, f64::min);
    let x = Axis::linear(0.0, end_s, 64.0, WIDTH - 24.0);
    let (bottom, top) = (LINES_HEIGHT - 44.0, 30.0);
    let y = if is_log {
        Axis::logarithmic(lowest / 4.0, highest * 1.2, bottom, top)
    } else {
        Axis::linear(0.0, highest * 1.05, bottom, top)
    };
    draw(heading, LINES_HEIGHT, |canvas| {
        canvas.horizontal_grid(&x, &y, short)?;
        for tick in x.ticks() {
            canvas.text((x.place(tick), bottom + 18.0), &short(tick), Ink::Text, HPos::Center)?;
        }
        let upwards = if is_log { "messages/s, logarithmic" } else { "messages/s" };
        canvas.titles(upwards, "seconds since the run began", bottom)?;
        canvas.lines(lines, &x, &y)
    })
}

/// Percentile curves: each step to the right leaves a tenth of the messages; durations on the
/// y-axis.
pub(crate) fn percentiles(heading: &Heading, lines: &[Line]) -> Result<String, fmt::Error> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let end = points().map(|point| point.0).fold(2.0, f64::max);
    let highest = points().map(|point| point.1).fold(1.0, f64::max);
    let lowest = points().map(|point| point.1).fold(highest, f64::min).max(0.1);
    let start = nines(50.0);
    let x = Axis::linear(start, end, 72.0, WIDTH - 30.0);
    let (bottom, top) = (LINES_HEIGHT - 44.0, 30.0);
    let y = Axis::logarithmic(lowest / 1.3, highest * 1.3, bottom, top);
    draw(heading, LINES_HEIGHT, |canvas| {
        canvas.horizontal_grid(&x, &y, text::time_us)?;
        let marks = [50.0, 75.0, 90.0, 99.0, 99.9, 99.99, 99.999, 99.9999];
        for mark in marks.into_iter().filter(|mark| nines(*mark) <= end + 1e-6) {
            let at = x.place(nines(mark));
            canvas.line(&[(at, top), (at, bottom)], Ink::Grid, 1.0, 1.0)?;
            canvas.text((at, bottom + 18.0), &format!("{mark} %"), Ink::Text, HPos::Center)?;
        }
        let rightwards = "this share of all took no longer than the curve (logarithmic)";
        canvas.titles("time, logarithmic", rightwards, bottom)?;
        canvas.lines(lines, &x, &y)
    })
}

/// The position of a percentile on the axis: 90 % at 1, 99 % at 2, 99.9 % at 3.
pub(crate) fn nines(percentile: f64) -> f64 {
    -(1.0 - percentile / 100.0).log10()
}

/// Horizontal bars, in groups.
pub(crate) fn bars(
    heading: &Heading,
    groups: &[Group],
    origin: Origin,
) -> Result<String, fmt::Error> {
    const BAR: f64 = 20.0;
    const LABEL_LINE: f64 = 16.0;
    let labels: Vec<_> = groups.iter().map(|group| text::wrap(&group.label, 30, 3)).collect();
    let heights: Vec<f64> = groups
        .iter()
        .zip(&labels)
        .map(|(group, label)| {
            (group.bars.len() as f64 * BAR).max(label.len() as f64 * LABEL_LINE) + 16.0
        })
        .collect();
    let (top, bottom) = (10.0, 10.0 + heights.iter().sum::<f64>());
    let values = || groups.iter().flat_map(|group| &group.bars).map(|bar| bar.value);
    let highest = values().fold(0.0, f64::max);
    // The text at the end of a bar needs room on the right; for bars below 1 ×, on the left.
    let x = match origin {
        Origin::Zero => Axis::linear(0.0, highest.max(1e-9), 240.0, WIDTH - 130.0),
        Origin::One => {
            let lowest = values().filter(|value| *value > 0.0).fold(1.0, f64::min);
            let left = if lowest < 1.0 { 380.0 } else { 240.0 };
            Axis::logarithmic(lowest, highest.max(2.0), left, WIDTH - 170.0)
        }
    };
    draw(heading, bottom + 34.0, |canvas| {
        let write = if origin == Origin::One { short_ratio } else { short };
        for tick in x.ticks() {
            let at = x.place(tick);
            canvas.line(&[(at, top), (at, bottom)], Ink::Grid, 1.0, 1.0)?;
            canvas.text((at, bottom + 16.0), &write(tick), Ink::Text, HPos::Center)?;
        }
        let start = x.place(if origin == Origin::One { 1.0 } else { 0.0 });
        let mut y = top + 8.0;
        for ((group, label), height) in groups.iter().zip(&labels).zip(&heights) {
            for (row, line) in label.iter().enumerate() {
                let at = y + 9.0 + row as f64 * LABEL_LINE;
                canvas.text((6.0, at), line, Ink::Text, HPos::Left)?;
            }
            for (row, bar) in group.bars.iter().enumerate() {
                let above = y + row as f64 * BAR;
                canvas.bar(bar, start, x.place(bar.value), above, BAR - 4.0)?;
            }
            y += height;
        }
        canvas.line(&[(start, top), (start, bottom)], Ink::Text, 1.5, 1.0)
    })
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A drawing area with lengths in units of the page.
struct Canvas<'a, 'b> {
    area: &'a Area<'b>,
}

impl Canvas<'_, '_> {
    fn text(
        &self,
        (x, y): (f64, f64),
        text: &str,
        ink: Ink,
        align: HPos,
    ) -> Result<(), fmt::Error> {
        // The drawing library divides sizes by 1.24.
        let colour = placeholder(ink);
        let style = TextStyle::from(("sans-serif", 13.0 * FINENESS * 1.24))
            .color(&colour)
            .pos(Pos::new(align, VPos::Center));
        self.area.draw(&Text::new(text.to_owned(), fine((x, y)), style)).map_err(|_| fmt::Error)
    }

    fn line(
        &self,
        points: &[(f64, f64)],
        ink: Ink,
        width: f64,
        opacity: f64,
    ) -> Result<(), fmt::Error> {
        let style = ShapeStyle {
            color: placeholder(ink).mix(opacity),
            filled: false,
            stroke_width: (width * FINENESS) as u32,
        };
        let points: Vec<_> = points.iter().copied().map(fine).collect();
        self.area.draw(&PathElement::new(points, style)).map_err(|_| fmt::Error)
    }

    fn bar(
        &self,
        bar: &Bar,
        start: f64,
        end: f64,
        above: f64,
        height: f64,
    ) -> Result<(), fmt::Error> {
        // A bar of length zero must still be visible.
        let (left, right) = if end < start { (end, start) } else { (start, end.max(start + 1.0)) };
        let corners = [fine((left, above)), fine((right, above + height))];
        let rectangle = Rectangle::new(corners, placeholder(bar.ink).filled());
        self.area.draw(&rectangle).map_err(|_| fmt::Error)?;
        let middle = above + height / 2.0;
        if end < start {
            self.text((left - 5.0, middle), &bar.text, Ink::Text, HPos::Right)
        } else {
            self.text((right + 5.0, middle), &bar.text, Ink::Text, HPos::Left)
        }
    }

    fn horizontal_grid(
        &self,
        x: &Axis,
        y: &Axis,
        write: fn(f64) -> String,
    ) -> Result<(), fmt::Error> {
        for tick in y.ticks() {
            let at = y.place(tick);
            self.line(&[(x.from, at), (x.to, at)], Ink::Grid, 1.0, 1.0)?;
            self.text((x.from - 8.0, at), &write(tick), Ink::Text, HPos::Right)?;
        }
        self.line(&[(x.from, y.from), (x.to, y.from)], Ink::Text, 1.0, 1.0)
    }

    fn titles(&self, upwards: &str, rightwards: &str, bottom: f64) -> Result<(), fmt::Error> {
        self.text((6.0, 12.0), upwards, Ink::Text, HPos::Left)?;
        self.text((WIDTH - 6.0, bottom + 36.0), rightwards, Ink::Text, HPos::Right)
    }

    fn lines(&self, lines: &[Line], x: &Axis, y: &Axis) -> Result<(), fmt::Error> {
        // Main lines are drawn on top.
        for is_main in [false, true] {
            let (width, opacity) = if is_main { (2.5, 1.0) } else { (1.0, 0.4) };
            for line in lines.iter().filter(|line| line.is_main == is_main) {
                let place = |point: &(f64, f64)| (x.place(point.0), y.place(point.1));
                let points: Vec<_> = line.points.iter().map(place).collect();
                self.line(&points, line.ink, width, opacity)?;
            }
        }
        Ok(())
    }
}

fn draw(
    heading: &Heading,
    height: f64,
    paint: impl FnOnce(&Canvas<'_, '_>) -> Result<(), fmt::Error>,
) -> Result<String, fmt::Error> {
    let mut svg = String::new();
    let size = ((WIDTH * FINENESS) as u32, (height * FINENESS) as u32);
    {
        let area = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        paint(&Canvas { area: &area })?;
        area.present().map_err(|_| fmt::Error)?;
    }
    let drawn = svg.find('>').map_or("", |end| &svg[end + 1..]);
    Ok(format!(
        "<svg id=\"{id}\" class=\"plot\" data-plot=\"{kind}\" role=\"img\" \
         aria-label=\"{title}\" viewBox=\"0 0 {width} {height}\" \
         xmlns=\"http://www.w3.org/2000/svg\">\n<title>{title}</title>{drawn}",
        id = text::html(&heading.id),
        kind = heading.kind,
        title = text::html(&heading.title),
        width = size.0,
        height = size.1,
        drawn = with_variables(drawn),
    ))
}

fn fine((x, y): (f64, f64)) -> (i32, i32) {
    ((x * FINENESS).round() as i32, (y * FINENESS).round() as i32)
}

/// A unique colour that is replaced afterwards.
const fn placeholder(ink: Ink) -> RGBColor {
    match ink {
        Ink::Text => RGBColor(0xA0, 0, 0xF0),
        Ink::Grid => RGBColor(0xA0, 0, 0xF1),
        Ink::Floor => RGBColor(0xA0, 0, 0xF2),
        Ink::Subject(index) => RGBColor(0xA0, 0, (index % COLOURS) as u8),
    }
}

/// The name of a colour in the style sheet.
pub(crate) fn variable(ink: Ink) -> String {
    match ink {
        Ink::Text => "--text".to_owned(),
        Ink::Grid => "--grid".to_owned(),
        Ink::Floor => "--floor".to_owned(),
        Ink::Subject(index) => format!("--subject-{}", index % COLOURS),
    }
}

/// Quotes in text are escaped, so only attributes can match.
fn with_variables(svg: &str) -> String {
    let subjects = (0..COLOURS).map(Ink::Subject);
    [Ink::Text, Ink::Grid, Ink::Floor].into_iter().chain(subjects).fold(
        svg.to_owned(),
        |svg, ink| {
            let RGBColor(red, green, blue) = placeholder(ink);
            let from = format!("\"#{red:02X}{green:02X}{blue:02X}\"");
            svg.replace(&from, &format!("\"var({})\"", variable(ink)))
        },
    )
}

/// A number for an axis: `1.5 M` instead of `1,500,000`.
fn short(value: f64) -> String {
    let (scaled, suffix) = match value.abs() {
        size if size >= 1e9 => (value / 1e9, " G"),
        size if size >= 1e6 => (value / 1e6, " M"),
        size if size >= 1e3 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    format!("{}{suffix}", (scaled * 1e4).round() / 1e4)
}

fn short_ratio(value: f64) -> String {
    format!("{} ×", short(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn heading() -> Heading {
        Heading { id: "a".to_owned(), kind: "bars", title: "<of> \"it\"".to_owned() }
    }

    #[test]
    fn colours_become_variables_and_texts_are_escaped() {
        let bar = |ink| Bar { ink, value: 3.0, text: "\"#A00000\" <b>".to_owned() };
        let bars_of = vec![bar(Ink::Subject(1)), bar(Ink::Floor)];
        let group = Group { label: "it & that".to_owned(), bars: bars_of };
        let svg = bars(&heading(), &[group], Origin::One).unwrap();
        assert!(svg.contains("fill=\"var(--subject-1)\""), "{svg}");
        assert!(svg.contains("fill=\"var(--floor)\""), "{svg}");
        assert!(svg.contains("&quot;#A00000&quot; &lt;b&gt;"), "{svg}");
        assert!(svg.contains("it &amp; that"), "{svg}");
        assert!(svg.contains("aria-label=\"&lt;of&gt; &quot;it&quot;\""), "{svg}");
        assert!(svg.trim_end().ends_with("</svg>"), "{svg}");
        assert!(!svg.contains("=\"#A000"), "{svg}");
    }

    #[test]
    fn percentiles_stand_at_their_nines() {
        for (percentile, at) in [(90.0, 1.0), (99.0, 2.0), (99.9, 3.0)] {
            assert!((nines(percentile) - at).abs() < 1e-9, "{percentile}");
        }
        let points = vec![(nines(50.0), 100.0), (nines(99.0), 5_000.0)];
        let line = Line { ink: Ink::Subject(0), is_main: true, points };
        let svg = percentiles(&heading(), &[line]).unwrap();
        assert!(svg.contains("99 %") && !svg.contains("99.9 %"), "{svg}");
        assert!(svg.contains("1.00 ms"), "{svg}");
    }

    #[test]
    fn plots_of_nothing_are_drawn_without_a_panic() {
        rates(&heading(), &[], true).unwrap();
        rates(&heading(), &[], false).unwrap();
        percentiles(&heading(), &[]).unwrap();
        bars(&heading(), &[], Origin::Zero).unwrap();
        bars(&heading(), &[], Origin::One).unwrap();
    }

    #[test]
    fn numbers_of_axes_are_short() {
        assert_eq!(short(1_500_000.0), "1.5 M");
        assert_eq!(short(20_000.0), "20 k");
        assert_eq!(short(0.25), "0.25");
        assert_eq!(short_ratio(10.0), "10 ×");
    }
}
