//! Charts of requests over time.

use maud::{Markup, PreEscaped, html};
use plotters::coord::Shift;
use plotters::drawing::DrawingArea;
use plotters::prelude::{
    DrawingAreaErrorKind, DrawingBackend, IntoDrawingArea, PathElement, RGBColor, Rectangle,
    SVGBackend, Text,
};
use plotters::style::text_anchor::{HPos, Pos, VPos};
use plotters::style::{Color, IntoFont, TextStyle};

use super::format::{counted, number, percent, rounded};

// The style sheet replaces the colors, by these values.
const FORWARDED: RGBColor = RGBColor(0x2f, 0x6f, 0xb7);
const FAILED: RGBColor = RGBColor(0xd9, 0x94, 0x1e);
const REFUSED: RGBColor = RGBColor(0xc2, 0x36, 0x36);
const GRID: RGBColor = RGBColor(0xdd, 0xe2, 0xe8);
const LABEL: RGBColor = RGBColor(0x56, 0x61, 0x6f);

/// For wide screens and for narrow ones: the class, the width, the height, and the most labels below the bars.
const SIZES: [(&str, u32, u32, usize); 2] =
    [("plot wide", 560, 210, 7), ("plot narrow", 300, 190, 4)];

/// The room around the bars, in pixels: above, to the right, below and to the left.
const MARGINS: (i32, i32, i32, i32) = (10, 18, 24, 46);

/// The height of a part of a bar that is not nothing is not less, in pixels.
const LEAST: i32 = 2;

/// The widest bar, in pixels.
const WIDEST: i32 = 28;

/// The lines of the grid above the lowest.
const STEPS: u64 = 5;

const LABEL_SIZE: u32 = 12;

/// What happened in an hour or a day.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Point {
    /// When, for the table.
    pub(super) when: String,
    /// When, below the bar.
    pub(super) label: String,
    /// All requests.
    pub(super) requests: u64,
    /// Those that failed, refused ones included.
    pub(super) failed: u64,
    /// Those that were refused.
    pub(super) refused: u64,
}

/// A chart of requests over time, with the same as text and as a table.
pub(super) fn figure(title: &str, unit: &str, points: &[Point]) -> Markup {
    html! {
        figure class="card chart" {
            figcaption {
                h3 { (title) }
                p class="muted" { (summary(unit, points)) }
            }
            @for (class, width, height, labels) in SIZES {
                @if let Ok(svg) = draw(points, (width, height), labels) {
                    // The texts in it are digits and those of this file, and plotters escapes all texts.
                    div class=(class) aria-hidden="true" { (PreEscaped(svg)) }
                }
            }
            ul class="legend" {
                li { span class="swatch forwarded" {} "Succeeded" }
                li { span class="swatch failed" {} "Error responses" }
                li { span class="swatch refused" {} "Refused" }
            }
            details {
                summary { "Show as a table" }
                (table(title, unit, points))
            }
        }
    }
}

/// What a chart shows, in a sentence.
fn summary(unit: &str, points: &[Point]) -> String {
    let sum = |value: fn(&Point) -> u64| points.iter().map(value).fold(0, u64::saturating_add);
    let (requests, refused) = (sum(|point| point.requests), sum(|point| point.refused));
    let peak = points.iter().max_by_key(|point| point.requests);
    match peak {
        Some(peak) if requests > 0 => format!(
            "{}, {} refused ({}). The busiest {unit} was {} with {}.",
            counted(requests, "request"),
            number(refused),
            percent(refused, requests),
            peak.when,
            counted(peak.requests, "request"),
        ),
        _ => "No requests.".to_owned(),
    }
}

fn table(title: &str, unit: &str, points: &[Point]) -> Markup {
    html! {
        div class="scroll" role="region" aria-label={ (title) ", as a table" } tabindex="0" {
            table {
                caption class="hidden" { (title) }
                thead {
                    tr {
                        th scope="col" { (unit) " (UTC)" }
                        th scope="col" class="number" { "Requests" }
                        th scope="col" class="number" { "Error responses" }
                        th scope="col" class="number" { "Refused" }
                    }
                }
                tbody {
                    @for point in points.iter().rev().filter(|point| point.requests > 0) {
                        tr {
                            th scope="row" { (point.when) }
                            td class="number" { (number(point.requests)) }
                            td class="number" { (number(point.failed.saturating_sub(point.refused))) }
                            td class="number" { (number(point.refused)) }
                        }
                    }
                }
            }
        }
    }
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Failure<'a> = DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>;

/// Where the bars are, in pixels, and how many requests the highest may have.
struct Frame {
    left: i32,
    right: i32,
    top: i32,
    bottom: i32,
    most: u64,
}

/// Draws a chart as SVG.
fn draw(points: &[Point], size: (u32, u32), labels: usize) -> Result<String, String> {
    let mut svg = String::new();
    draw_into(&mut svg, points, size, labels).map_err(|error| error.to_string())?;
    Ok(svg)
}

fn draw_into<'a>(
    svg: &'a mut String,
    points: &[Point],
    size: (u32, u32),
    labels: usize,
) -> Result<(), Failure<'a>> {
    let area = SVGBackend::with_string(svg, size).into_drawing_area();
    let frame = Frame::new(size, points);
    frame.draw_grid(&area)?;
    let step = points.len().div_ceil(labels.max(1)).max(1);
    for (index, point) in points.iter().enumerate() {
        let middle = frame.middle(index, points.len());
        frame.draw_bar(&area, point, middle, points.len())?;
        if (points.len() - 1 - index).is_multiple_of(step) {
            let style = label(HPos::Center, VPos::Top);
            area.draw(&Text::new(point.label.as_str(), (middle, frame.bottom + 7), style))?;
        }
    }
    area.present()
}

fn label(x: HPos, y: VPos) -> TextStyle<'static> {
    let font = ("sans-serif", LABEL_SIZE).into_font();
    TextStyle::from(font).color(&LABEL).pos(Pos::new(x, y))
}

// === impl Frame ===

impl Frame {
    fn new((width, height): (u32, u32), points: &[Point]) -> Self {
        let (above, right, below, left) = MARGINS;
        let pixels = |length| i32::try_from(length).unwrap_or(i32::MAX);
        let most = points.iter().map(|point| point.requests).max().unwrap_or(0);
        Self {
            left,
            right: pixels(width).saturating_sub(right),
            top: above,
            bottom: pixels(height).saturating_sub(below),
            most: round_up(most),
        }
    }

    /// The middle of the place of a bar.
    fn middle(&self, index: usize, count: usize) -> i32 {
        let position = (index.saturating_mul(2) + 1) * self.width();
        let x = position.checked_div(count.saturating_mul(2)).unwrap_or(0);
        self.left.saturating_add(i32::try_from(x).unwrap_or(0))
    }

    fn width(&self) -> usize {
        usize::try_from(self.right - self.left).unwrap_or(0)
    }

    /// The height of a number of requests.
    fn height(&self, requests: u64) -> i32 {
        let pixels = u128::try_from(self.bottom - self.top).unwrap_or(0);
        let height = (u128::from(requests) * pixels).checked_div(u128::from(self.most));
        i32::try_from(height.unwrap_or(0)).unwrap_or(0)
    }

    fn draw_grid<'a>(&self, area: &Area<'a>) -> Result<(), Failure<'a>> {
        for step in 0..=STEPS {
            let requests = self.most / STEPS * step;
            let y = self.bottom - self.height(requests);
            area.draw(&PathElement::new(vec![(self.left, y), (self.right, y)], GRID))?;
            let style = label(HPos::Right, VPos::Center);
            area.draw(&Text::new(rounded(requests), (self.left - 6, y), style))?;
        }
        Ok(())
    }

    fn draw_bar<'a>(
        &self,
        area: &Area<'a>,
        point: &Point,
        middle: i32,
        count: usize,
    ) -> Result<(), Failure<'a>> {
        let place = i32::try_from(self.width() / count.max(1)).unwrap_or(WIDEST);
        let half = (place * 2 / 5).clamp(1, WIDEST / 2);
        let mut bottom = self.bottom;
        for (color, requests) in point.parts() {
            if requests > 0 {
                let top = bottom - self.height(requests).max(LEAST);
                let corners = [(middle - half, top), (middle + half, bottom)];
                area.draw(&Rectangle::new(corners, color.filled()))?;
                bottom = top;
            }
        }
        Ok(())
    }
}

/// The least number not below this one that is 5, 10, 20 or a power of ten times that: a fifth of it is whole.
fn round_up(most: u64) -> u64 {
    let mut unit = 1_u64;
    loop {
        for factor in [5, 10, 20] {
            match unit.checked_mul(factor) {
                None => return u64::MAX - u64::MAX % STEPS,
                Some(round) if round >= most => return round,
                Some(_) => {}
            }
        }
        unit = unit.saturating_mul(10);
    }
}

// === impl Point ===

impl Point {
    /// The parts of its bar, from below.
    fn parts(&self) -> [(RGBColor, u64); 3] {
        let refused = self.refused.min(self.requests);
        let failed = self.failed.clamp(refused, self.requests.max(refused)) - refused;
        let forwarded = self.requests.saturating_sub(failed).saturating_sub(refused);
        [(FORWARDED, forwarded), (FAILED, failed), (REFUSED, refused)]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn point(requests: u64, failed: u64, refused: u64) -> Point {
        Point { when: "w".to_owned(), label: "l".to_owned(), requests, failed, refused }
    }

    fn svg(points: &[Point]) -> String {
        draw(points, (560, 210), 7).unwrap()
    }

    /// The bars: color, top and height.
    fn bars(svg: &str) -> Vec<(String, i32, i32)> {
        let attribute = |tag: &str, name: &str| {
            let (_, rest) = tag.split_once(&format!(" {name}=\"")).unwrap();
            rest.split_once('"').unwrap().0.to_owned()
        };
        let tags = svg.split('<').filter(|tag| tag.starts_with("rect"));
        tags.map(|tag| {
            let number = |name| attribute(tag, name).parse().unwrap();
            (attribute(tag, "fill"), number("y"), number("height"))
        })
        .collect()
    }

    #[test]
    fn the_parts_of_a_bar_are_on_top_of_each_other_and_to_scale() {
        let bars = bars(&svg(&[point(100, 50, 25)]));
        let (highest, lowest) = (10, 186);
        let quarter = (lowest - highest) / 4;
        assert_eq!(
            bars,
            [
                ("#2F6FB7".to_owned(), lowest - 2 * quarter, 2 * quarter),
                ("#D9941E".to_owned(), lowest - 3 * quarter, quarter),
                ("#C23636".to_owned(), highest, quarter),
            ]
        );
    }

    #[test]
    fn one_refusal_among_millions_is_seen() {
        let bars = bars(&svg(&[point(5_000_000, 1, 1)]));
        assert_eq!((bars.len(), bars[1].0.as_str(), bars[1].2), (2, "#C23636", LEAST));
    }

    #[test]
    fn charts_of_nothing_of_one_point_and_of_huge_values_stay_inside() {
        let huge = point(u64::MAX, u64::MAX, u64::MAX);
        let odd = point(0, 7, 9);
        let many = vec![point(3, 2, 1); 5000];
        for points in
            [&[][..], &[point(0, 0, 0)], &[point(1, 0, 0)], &[huge.clone(), huge, odd], &many]
        {
            for (_, width, height, labels) in SIZES {
                let svg = draw(points, (width, height), labels).unwrap();
                assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));
                for (_, top, length) in bars(&svg) {
                    assert!(top >= 0 && top + length <= i32::try_from(height).unwrap(), "{svg}");
                }
                let texts = svg.matches("<text").count();
                assert!(texts <= labels + 6, "{texts} labels");
            }
        }
    }

    #[test]
    fn the_scale_ends_at_a_round_number() {
        for (most, round) in [
            (0, 5),
            (5, 5),
            (6, 10),
            (11, 20),
            (21, 50),
            (99, 100),
            (101, 200),
            (200_001, 500_000),
            (u64::MAX, u64::MAX),
        ] {
            assert_eq!(round_up(most), round, "{most}");
            assert_eq!(round_up(most) % STEPS, 0);
        }
    }

    #[test]
    fn texts_in_a_chart_are_escaped() {
        let mut hostile = point(1, 0, 0);
        hostile.label = "<script>&\"".to_owned();
        let svg = svg(&[hostile]);
        assert!(svg.contains("&lt;script&gt;&amp;&quot;") && !svg.contains("<script"), "{svg}");
    }

    #[test]
    fn the_style_sheet_knows_the_colors() {
        let sheet = include_str!("style.css");
        let svg = svg(&[point(9, 5, 2)]);
        for color in [FORWARDED, FAILED, REFUSED, GRID, LABEL] {
            let RGBColor(red, green, blue) = color;
            let color = format!("\"#{red:02X}{green:02X}{blue:02X}\"");
            assert!(svg.contains(&color) && sheet.contains(&color), "{color}");
        }
    }

    #[test]
    fn a_chart_says_in_words_and_as_a_table_what_it_shows() {
        let mut points = vec![point(0, 0, 0), point(3000, 40, 30)];
        points[1].when = "2026-11-30".to_owned();
        let figure = figure("Last <2> days", "day", &points).into_string();
        for text in [
            "3\u{202f}000 requests, 30 refused (1.0\u{202f}%). The busiest day was 2026-11-30 with 3\u{202f}000 requests.",
            "Last &lt;2&gt; days",
            "<th scope=\"row\">2026-11-30</th><td class=\"number\">3\u{202f}000</td><td class=\"number\">10</td>",
        ] {
            assert!(figure.contains(text), "{text} is not in {figure}");
        }
        assert_eq!(figure.matches("<tr>").count(), 2, "days without requests are no rows");
        assert!(summary("day", &[]).contains("No requests"));
    }
}
