//! The instructions that streams take: those of a piece, and those of the rest of a request.

use crate::table::Table;
use crate::targets::Piece;

/// The numbers of pieces of the streams that are counted. In their difference cancels what does not depend on them.
pub(crate) const FEW: u32 = 10;
pub(crate) const MANY: u32 = 110;

/// The case without a filter, and that of a key whose usage nothing depends on.
pub(crate) const BARE: &str = "stream-bare";
pub(crate) const UNMETERED: &str = "stream-unmetered";

/// What was counted of a case, per request.
pub(crate) struct Streamed {
    pub(crate) id: &'static str,
    pub(crate) title: &'static str,
    /// With [`FEW`] and with [`MANY`] pieces.
    pub(crate) few: f64,
    pub(crate) many: f64,
}

// === impl Streamed ===

impl Streamed {
    /// What one piece takes.
    fn piece(&self) -> f64 {
        (self.many - self.few) / f64::from(MANY - FEW)
    }

    /// What a request takes without its pieces.
    fn rest(&self) -> f64 {
        self.few - self.piece() * f64::from(FEW)
    }
}

/// For the terminal and for docs/performance.md.
pub(crate) fn table(streamed: &[Streamed], piece: &Piece) -> Table {
    let head = [
        "thousand instructions",
        "a piece",
        "added",
        "× unavoidable",
        "the rest of a request",
        "added",
        "over unmetered",
    ];
    let rows = streamed.iter().map(|case| {
        let (pieces, rest) = (added(streamed, case.id), over(streamed, case, BARE, Streamed::rest));
        let unmetered = over(streamed, case, UNMETERED, Streamed::rest).filter(|_| case.id != BARE);
        vec![
            case.title.to_owned(),
            thousand(case.piece()),
            or(pieces, thousand_more),
            or(pieces, |added| format!("{:.2}", piece.times(added))),
            thousand(case.rest()),
            or(rest, thousand_more),
            or(unmetered, thousand_more),
        ]
    });
    Table::new(head.map(str::to_owned).to_vec(), rows.collect())
}

/// All numbers: what they were counted on, then a line for each case.
pub(crate) fn csv(streamed: &[Streamed], machine: &str) -> String {
    let lines = streamed
        .iter()
        .map(|Streamed { id, title, few, many }| format!("{id},\"{title}\",{few:.0},{many:.0}\n"));
    let lines: String = lines.collect();
    format!(
        "# {machine}\n# instructions per request in user space, with {FEW} and with {MANY} pieces\n\
         case,title,few,many\n{lines}"
    )
}

/// What a piece takes more than without a filter.
pub(crate) fn added(streamed: &[Streamed], id: &str) -> Option<f64> {
    let case = streamed.iter().find(|case| case.id == id)?;
    over(streamed, case, BARE, Streamed::piece)
}

/// What a case takes more than another one; `None` for that one.
fn over(
    streamed: &[Streamed],
    case: &Streamed,
    other: &str,
    of: fn(&Streamed) -> f64,
) -> Option<f64> {
    let other = streamed.iter().find(|found| found.id == other)?;
    (other.id != case.id).then(|| of(case) - of(other))
}

fn thousand(instructions: f64) -> String {
    format!("{:.1}", instructions / 1e3)
}

fn thousand_more(instructions: f64) -> String {
    format!("{:+.1}", instructions / 1e3)
}

fn or(value: Option<f64>, text: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| "–".to_owned(), text)
}
