use std::fs;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;

use super::*;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

fn generation(path: &Path) -> Generation {
    Generation::open(path).unwrap().unwrap()
}

fn append(path: &Path, text: &[u8]) {
    let mut file = File::options().append(true).create(true).open(path).unwrap();
    file.write_all(text).unwrap();
}

fn rest(generation: &mut Generation) -> Vec<String> {
    let mut lines = Vec::new();
    while let Some(line) = generation.next_line().unwrap() {
        lines.push(match line {
            FileLine::Text(text) => text,
            FileLine::TooLong => "(too long)".to_owned(),
        });
    }
    lines
}

#[test]
fn only_complete_lines_count_and_the_rest_is_read_when_it_is_there() {
    let folder = folder();
    let path = folder.path().join("a");
    append(&path, b"on");
    assert!(Generation::open(&path).unwrap().is_none(), "it cannot be known yet");
    append(&path, b"e\ntw");
    let mut file = generation(&path);
    assert_eq!((rest(&mut file), file.offset()), (vec!["one".to_owned()], 4));
    append(&path, b"o\r\n\nth");
    assert_eq!((rest(&mut file), file.offset()), (vec!["two".to_owned(), String::new()], 10));
    assert_eq!(file.last_line(), Some(FileLine::Text("th".to_owned())));
    assert_eq!((file.last_line(), file.offset()), (None, 12));
}

#[test]
fn text_of_any_bytes_is_read() {
    let folder = folder();
    let path = folder.path().join("a");
    append(&path, b"a\xff\0b\n\xc3\x28\n");
    assert_eq!(rest(&mut generation(&path)), ["a\u{fffd}\0b", "\u{fffd}("]);
}

#[test]
fn a_line_that_is_too_long_is_skipped_whole_also_after_a_restart() {
    let folder = folder();
    let path = folder.path().join("a");
    append(&path, b"a\n");
    append(&path, &vec![b'x'; MAX_LINE_BYTES * 2 + 10]);
    let mut file = generation(&path);
    assert_eq!((rest(&mut file), file.offset()), (vec!["a".to_owned()], 2));
    assert!(file.part.len() <= MAX_LINE_BYTES, "it is not kept");
    append(&path, b"x\nb\n");
    let mut again = generation(&path);
    again.resume(file.offset()).unwrap();
    for mut file in [file, again] {
        assert_eq!(rest(&mut file), ["(too long)", "b"]);
    }
    let longest = [vec![b'x'; MAX_LINE_BYTES], b"\n".to_vec()].concat();
    fs::write(&path, &longest).unwrap();
    assert_eq!(rest(&mut generation(&path))[0].len(), MAX_LINE_BYTES);
}

/// A writer that does not append goes on where it was when its file is truncated.
#[test]
fn a_hole_before_a_line_is_skipped() {
    let folder = folder();
    let path = folder.path().join("a");
    let file = File::create(&path).unwrap();
    file.write_all_at(b"first\nsecond\n", 3_000_000).unwrap();
    let mut found = generation(&path);
    assert_eq!(rest(&mut found), ["first", "second"]);
    fs::write(folder.path().join("b"), "first\n").unwrap();
    assert_eq!(found.fingerprint(), generation(&folder.path().join("b")).fingerprint());
    assert!(found.is_intact());
}

#[test]
fn what_is_truncated_is_noticed_although_it_is_as_long_again() {
    let folder = folder();
    let path = folder.path().join("a");
    append(&path, b"one\ntwo\n");
    let mut file = generation(&path);
    assert_eq!(rest(&mut file).len(), 2);
    append(&path, b"three\n");
    assert!(file.is_at(&path));
    fs::write(&path, "").unwrap();
    assert!(!file.is_intact() && file.is_same_file(&path));
    append(&path, b"four\nfive\nsix\n");
    assert!(!file.is_at(&path), "another line is the first");
}

#[test]
fn a_compressed_copy_is_the_same_file() {
    let folder = folder();
    let (path, packed) = (folder.path().join("a"), folder.path().join("a.gz"));
    let text = b"one\ntwo\nthree\n";
    append(&path, text);
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text).unwrap();
    let whole = encoder.finish().unwrap();
    fs::write(&packed, &whole).unwrap();
    let mut file = generation(&packed);
    assert_eq!(file.fingerprint(), generation(&path).fingerprint());
    file.resume(4).unwrap();
    assert_eq!((rest(&mut file), file.offset()), (vec!["two".to_owned(), "three".to_owned()], 14));
    let mut short = generation(&packed);
    short.resume(100).unwrap();
    let error = short.next_line().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UnexpectedEof, "it has less than was read of it");
}

#[test]
fn what_is_no_file_is_an_error_and_a_pipe_does_not_block() {
    let folder = folder();
    let error = Generation::open(folder.path()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::IsADirectory);
    let pipe = folder.path().join("pipe");
    let mode = rustix::fs::Mode::RUSR;
    let kind = rustix::fs::FileType::Fifo;
    rustix::fs::mknodat(rustix::fs::CWD, &pipe, kind, mode, 0).unwrap();
    assert_eq!(Generation::open(&pipe).err().unwrap().kind(), ErrorKind::InvalidInput);
}

#[test]
fn rotated_files_are_known_by_their_names() {
    for other in [
        "a.log.1",
        "a.log.12.gz",
        "a.log-20260131",
        "a.log-20260131-1769860000.gz",
        "a.log.2026-01-31T12:00:00Z",
        "a.log.20260131-120000.gz",
        "a.log.old",
        "a.log.gz",
        "a-20260131.log",
        "a-2026-01-31T12-00-00.000.log.gz",
    ] {
        assert!(is_rotated(b"a.log", other.as_bytes()), "{other}");
    }
    for other in [
        "a.log", "a.log.", "a.log.bz2", "a.log.1.zst", "a.log.lock", "a.log-admin",
        "a.log-admin.1", "a.log2", "a-2.log", "b.log.1", "a-20260131.txt", "",
    ] {
        assert!(!is_rotated(b"a.log", other.as_bytes()), "{other}");
    }
    assert!(is_rotated(b"0.log", b"0.log.20260131-120000"), "as in Kubernetes");
    assert!(is_rotated(b"audit", b"audit-20260131"), "without an extension");
}

#[test]
fn rotated_files_are_beside_the_target_of_a_link() {
    let folder = folder();
    let (pods, links) = (folder.path().join("pods"), folder.path().join("containers"));
    fs::create_dir_all(&pods).unwrap();
    fs::create_dir_all(&links).unwrap();
    fs::write(pods.join("0.log.20260131-120000"), "x\n").unwrap();
    fs::create_dir(pods.join("0.log.1")).unwrap();
    let link = links.join("x.log");
    std::os::unix::fs::symlink("../pods/0.log", &link).unwrap();
    let names = |path: &Path| {
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        rotated(path).unwrap().into_iter().map(name).collect::<Vec<_>>()
    };
    assert_eq!(names(&link), ["0.log.20260131-120000"], "the target is not there");
    fs::write(pods.join("0.log"), "y\n").unwrap();
    assert_eq!(names(&link), ["0.log.20260131-120000"]);
}

#[test]
fn of_very_many_rotated_files_the_latest_are_looked_at() {
    let folder = folder();
    let path = folder.path().join("a");
    for number in 0..MAX_ROTATED as u64 + 5 {
        let file = File::create(folder.path().join(format!("a.{number}"))).unwrap();
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(number);
        file.set_modified(time).unwrap();
    }
    let found = rotated(&path).unwrap();
    assert_eq!(found.len(), MAX_ROTATED);
    assert_eq!(found[0], folder.path().join("a.5"));
}
