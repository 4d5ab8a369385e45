//! Reads a profile of callgrind and sums it up by function.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// How many functions are shown.
const SHOWN: usize = 60;

/// Prefixes of functions around the counted code: this program, the start code of the standard library and
/// the C library.
const AROUND: [&str; 7] =
    ["bench_core::", "<bench_core::", "std::", "main", "(below main)", "__libc_", "0x"];

/// The instructions of each function.
pub(crate) struct Profile<'a> {
    functions: BTreeMap<&'a str, Cost>,
    total: u64,
}

#[derive(Clone, Copy, Default)]
struct Cost {
    /// The function itself, with everything inlined into it.
    own: u64,
    /// The functions that it calls.
    called: u64,
}

/// Selects a cost.
type View = fn(&Cost) -> u64;

impl<'a> Profile<'a> {
    /// Parses a profile (Valgrind manual, "Callgrind Format Specification"): `fn=` names the function of
    /// the following lines. A line that starts with a position has its own cost, but after `calls=` the
    /// cost of that call. A name is given only once, after its number. `None` if it is not a profile, or
    /// nothing was counted.
    pub(crate) fn read(text: &'a str) -> Option<Self> {
        let mut profile = Self { functions: BTreeMap::new(), total: 0 };
        let mut names = BTreeMap::new();
        let mut function = "";
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if let Some(name) = line.strip_prefix("fn=") {
                function = full_name(name, &mut names)?;
            } else if let Some(name) = line.strip_prefix("cfn=") {
                full_name(name, &mut names)?;
            } else if line.starts_with("calls=") {
                profile.functions.entry(function).or_default().called += cost(lines.next()?)?;
            } else if let Some(total) = line.strip_prefix("totals: ") {
                profile.total = total.trim().parse().ok()?;
            } else if line.starts_with(|c: char| c.is_ascii_digit() || "+-*".contains(c)) {
                profile.functions.entry(function).or_default().own += cost(line)?;
            }
        }
        (profile.total > 0).then_some(profile)
    }

    /// The instructions of all functions.
    pub(crate) fn total(&self) -> u64 {
        self.total
    }

    /// The most expensive functions, by themselves and with what they call. The latter counts recursive
    /// functions more than once.
    pub(crate) fn to_text(&self) -> String {
        let views: [(&str, View); 2] =
            [("by themselves", |cost| cost.own), ("with what they call", Cost::all)];
        let mut text = String::new();
        for (title, view) in views {
            _ = writeln!(text, "\ninstructions of functions, {title}:");
            for (name, cost) in self.most_expensive(view) {
                let share = view(&cost) as f64 / self.total as f64 * 100.0;
                _ = writeln!(text, "{:>9} {share:>5.1} %  {name}", view(&cost));
            }
        }
        text
    }

    fn most_expensive(&self, view: View) -> impl Iterator<Item = (&'a str, Cost)> {
        let is_around = |name: &str| AROUND.iter().any(|around| name.starts_with(around));
        let functions = self.functions.iter().map(|(name, cost)| (*name, *cost));
        let mut functions: Vec<_> = functions.filter(|(name, _)| !is_around(name)).collect();
        functions.sort_by_key(|(_, cost)| Reverse(view(cost)));
        functions.into_iter().take(SHOWN)
    }
}

impl Cost {
    fn all(&self) -> u64 {
        self.own + self.called
    }
}

/// Resolves `(NUMBER) NAME`, or `(NUMBER)` for an earlier name.
fn full_name<'a>(text: &'a str, names: &mut BTreeMap<&'a str, &'a str>) -> Option<&'a str> {
    if let Some((number, name)) = text.split_once(' ') {
        names.insert(number, name);
        return Some(name);
    }
    names.get(text).copied()
}

/// The cost, which follows the position.
fn cost(line: &str) -> Option<u64> {
    line.split(' ').nth(1)?.parse().ok()
}
