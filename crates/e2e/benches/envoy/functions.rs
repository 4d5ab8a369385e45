//! Where the module's own instructions go: by function, in the code that V8 has compiled.
//!
//! V8 gives no names to callgrind. But functions of a module call each other through a table of jumps at the start of the
//! module's code, in the order of the functions, so the address that is called tells the function. Its name is in the
//! list that tools/build-wasm.sh writes beside the module.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fs;
use std::ops::Range;
use std::path::Path;

use rustc_demangle::demangle;
use wasmparser::{Parser, Payload, TypeRef};

use crate::callgrind::{Code, Dump};
use crate::table::Table;

/// A jump in V8's table.
const SLOT_BYTES: u64 = 8;

/// Functions with fewer instructions in a request are left out.
const SHOWN: f64 = 20.0;

/// Longer names are cut.
const MAX_NAME: usize = 90;

/// The functions of a module, in the order of V8's table.
pub(crate) struct Names(Vec<String>);

// === impl Names ===

impl Names {
    /// Those of a built module.
    ///
    /// # Errors
    ///
    /// When the module or its list of names cannot be read.
    pub(crate) fn of_module(module: &Path) -> Result<Self, String> {
        let list = module.with_extension("symbols");
        let wasm = fs::read(module).map_err(|error| format!("{}: {error}", module.display()))?;
        let text =
            fs::read_to_string(&list).map_err(|error| format!("{}: {error}", list.display()))?;
        Ok(Self::parse(&text, imported(&wasm)?))
    }

    /// Reads lines such as `320:name`, the imported functions first.
    pub(crate) fn parse(list: &str, imported: usize) -> Self {
        let names = list.lines().filter_map(|line| line.split_once(':'));
        Self(names.skip(imported).map(|(_, name)| short(name)).collect())
    }

    /// The name of the function that is called at an address. V8 puts the table at the start of a mapping.
    fn at(&self, address: u64, code: &[Range<u64>]) -> Option<&str> {
        let table = code.iter().find(|range| range.contains(&address))?.start;
        let (slot, rest) = ((address - table) / SLOT_BYTES, (address - table) % SLOT_BYTES);
        let name = self.0.get(usize::try_from(slot).ok()?)?;
        (rest == 0).then_some(name)
    }
}

/// The name as the source has it.
fn short(name: &str) -> String {
    let name = format!("{:#}", demangle(name));
    match name.char_indices().nth(MAX_NAME) {
        Some((end, _)) => format!("{}…", name.get(..end).unwrap_or_default()),
        None => name,
    }
}

/// How many functions a module imports.
fn imported(wasm: &[u8]) -> Result<usize, String> {
    let mut imported = 0;
    for payload in Parser::new(0).parse_all(wasm) {
        if let Payload::ImportSection(section) = payload.map_err(|error| error.to_string())? {
            let imports = section.into_imports().filter_map(Result::ok);
            imported += imports.filter(|import| matches!(import.ty, TypeRef::Func(_))).count();
        }
    }
    Ok(imported)
}

/// The functions with the most instructions, per request. What has no name is called by the host or calls it.
pub(crate) fn table(dump: &Dump, names: &Names, requests: u32) -> Table {
    let each = |count: u64| count as f64 / f64::from(requests);
    let mut functions: BTreeMap<&str, Code> = BTreeMap::new();
    for (address, code) in &dump.code {
        let name =
            names.at(*address, &dump.code_spaces).unwrap_or("(calls between host and module)");
        let function = functions.entry(name).or_default();
        function.instructions += code.instructions;
        function.calls += code.calls;
    }
    let mut functions: Vec<_> = functions.into_iter().collect();
    functions.sort_by_key(|(_, code)| Reverse(code.instructions));
    let shown = functions.into_iter().filter(|(_, code)| each(code.instructions) >= SHOWN);
    let rows = shown.map(|(name, code)| {
        let (own, calls) = (each(code.instructions), each(code.calls));
        vec![name.to_owned(), format!("{own:.0}"), format!("{calls:.1}")]
    });
    let head = ["function of the module, per request", "instructions", "calls"];
    Table::new(head.map(str::to_owned).to_vec(), rows.collect())
}
