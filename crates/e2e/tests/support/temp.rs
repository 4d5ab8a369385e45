//! A directory of one test's own.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// Under `target/tmp`, gone at the end; a test that fails leaves it to the reader and says where.
pub(crate) struct TempDir {
    path: PathBuf,
    unique: String,
}

impl TempDir {
    pub(crate) fn new(label: &str) -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let unique = format!("{label}-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&unique);
        fs::create_dir_all(&path).expect("the target directory is writable");
        Self { path, unique }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// A name that no other directory of this machine's running tests has.
    pub(crate) fn unique(&self) -> &str {
        &self.unique
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("kept for a look: {}", self.path.display());
        } else {
            // What cannot be removed is under target, where `make clean` takes it.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
