//! The results as a picture, readable on a light and on a dark page.

use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::machine::Machine;
use crate::stats::Spread;
use crate::summary::{Line, Summary};

const WIDTH: u32 = 960;
const ROW: u32 = 26;
/// The heading, the scale and the note below it.
const HEAD: u32 = 44;
const FOOT: u32 = 70;
/// The names of the cases.
const NAMES: u32 = 360;
/// The numbers behind the bars.
const NUMBERS: u32 = 70;

const GATE: RGBColor = RGBColor(0x1f, 0x6f, 0xb4);
const OTHERS: RGBColor = RGBColor(0x9a, 0xa0, 0xa6);
const INK: RGBColor = RGBColor(0x22, 0x22, 0x22);
const GRID: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Draws what each case adds: a bar to the median, with a line from the least to the most.
///
/// # Errors
///
/// When the file cannot be written.
pub(crate) fn draw(path: &Path, summary: &Summary, machine: &Machine) -> Result<(), Failure> {
    let shown: Vec<_> = summary
        .lines
        .iter()
        .filter_map(|line| Some((line, line.added?)))
        .filter(|(line, _)| is_shown(line))
        .collect();
    let rows = u32::try_from(shown.len())?;
    let area = SVGBackend::new(path, (WIDTH, HEAD + rows * ROW + FOOT)).into_drawing_area();
    area.fill(&WHITE)?;
    let most = shown.iter().map(|(_, added)| added.max).fold(1.0, f64::max);
    let scale = Scale { most, bottom: i32::try_from(HEAD + rows * ROW)? };
    let title = "CPU time added to a request, µs (median; the line is the least and the most)";
    text(&area, title, (12, 22), 16, HPos::Left)?;
    scale.draw(&area)?;
    for (number, (line, added)) in shown.into_iter().enumerate() {
        let top = i32::try_from(HEAD)? + i32::try_from(number)? * i32::try_from(ROW)?;
        scale.bar(&area, top, line, added)?;
    }
    let note = machine.to_string();
    let (envoy, modules) = note.split_once("; ").unwrap_or((&note, ""));
    text(&area, envoy, (12, scale.bottom + 40), 12, HPos::Left)?;
    text(&area, modules, (12, scale.bottom + 56), 12, HPos::Left)?;
    area.present()?;
    Ok(())
}

/// Other sizes of requests are in the table only.
fn is_shown(line: &Line) -> bool {
    !line.id.contains("-h")
}

/// From microseconds to places in the picture.
struct Scale {
    most: f64,
    bottom: i32,
}

impl Scale {
    #[allow(clippy::cast_possible_truncation, reason = "a place in the picture")]
    fn x(&self, us: f64) -> i32 {
        let width = f64::from(WIDTH - NAMES - NUMBERS);
        let left = f64::from(NAMES);
        (left + us.max(0.0) / self.most * width) as i32
    }

    fn draw(&self, area: &Area<'_>) -> Result<(), Failure> {
        let step = step(self.most);
        let ticks = std::iter::successors(Some(0.0), |tick| Some(tick + step));
        for tick in ticks.take_while(|tick| *tick <= self.most) {
            let x = self.x(tick);
            let line = [(x, i32::try_from(HEAD)? - 6), (x, self.bottom)];
            area.draw(&PathElement::new(line, GRID))?;
            text(area, &format!("{tick}"), (x, self.bottom + 12), 12, HPos::Center)?;
        }
        Ok(())
    }

    fn bar(&self, area: &Area<'_>, top: i32, line: &Line, added: Spread) -> Result<(), Failure> {
        let middle = top + 10;
        let colour = if is_gate(line) { GATE } else { OTHERS };
        let bar = [(self.x(0.0), top + 2), (self.x(added.median), top + 18)];
        area.draw(&Rectangle::new(bar, colour.filled()))?;
        let (from, to) = (self.x(added.min), self.x(added.max));
        area.draw(&PathElement::new([(from, middle), (to, middle)], INK))?;
        for end in [from, to] {
            area.draw(&PathElement::new([(end, middle - 4), (end, middle + 4)], INK))?;
        }
        text(area, line.title, (self.x(0.0) - 8, middle), 13, HPos::Right)?;
        text(area, &format!("{:.1}", added.median), (to + 8, middle), 13, HPos::Left)
    }
}

fn is_gate(line: &Line) -> bool {
    ["verify", "rules", "limits", "audit", "all", "gated"]
        .iter()
        .any(|name| line.id.starts_with(name))
}

/// The distance of the marks: 1, 2 or 5 times a power of ten, for at most ten of them.
pub(crate) fn step(most: f64) -> f64 {
    let power = 10_f64.powf((most / 10.0).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power);
    steps.into_iter().find(|step| most / step <= 10.0).unwrap_or(most)
}

fn text(area: &Area<'_>, text: &str, at: (i32, i32), size: u32, to: HPos) -> Result<(), Failure> {
    let style = ("sans-serif", size).into_font().color(&INK).pos(Pos::new(to, VPos::Center));
    area.draw(&Text::new(text.to_owned(), at, style))?;
    Ok(())
}
