//! The files of `testdata/scenarios` and `testdata/bench`.

use std::fs;
use std::path::{Path, PathBuf};

use super::format::Scenario;
use super::run::{MakeMachine, run};

/// The root of the checkout, found from the package of the test.
fn root() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut above = package.ancestors();
    above.find(|folder| folder.join("testdata").is_dir()).expect("testdata is in the checkout")
}

pub(crate) fn files() -> Vec<PathBuf> {
    in_folder("testdata/scenarios")
}

fn in_folder(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(root().join(folder)).expect(folder);
    let mut files: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

pub(crate) fn read(file: &Path) -> Scenario {
    let text = fs::read(file).expect("a scenario");
    Scenario::read(&text).unwrap_or_else(|invalid| panic!("{}: {invalid}", file.display()))
}

/// Runs every scenario on one kind of machine.
pub(crate) fn all_hold(name: &str, make: &MakeMachine) {
    // The scenarios of the bench must hold too.
    hold(name, make, &[files(), in_folder("testdata/bench")].concat());
}

/// Runs every scenario that has the body of a request.
pub(crate) fn all_with_bodies_hold(name: &str, make: &MakeMachine) {
    let has_body =
        |file: &PathBuf| fs::read_to_string(file).expect("a file").contains("\"body\": ");
    let files: Vec<_> = files().into_iter().filter(has_body).collect();
    assert!(files.len() > 5, "{files:?}");
    hold(name, make, &files);
}

fn hold(name: &str, make: &MakeMachine, files: &[PathBuf]) {
    let mut failures = Vec::new();
    for file in files {
        let scenario = read(file);
        if scenario.not_on.iter().any(|machine| machine == name) {
            continue;
        }
        let name = file.file_name().unwrap_or_default().to_string_lossy();
        let found = run(&scenario, make).into_iter();
        failures.extend(found.map(|problem| format!("{name} {problem}")));
    }
    assert!(failures.is_empty(), "{} problems:\n{}", failures.len(), failures.join("\n"));
}
