use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

/// A file of `/dev/shm` that goes with the test.
struct Memory {
    key: String,
    path: PathBuf,
}

impl Memory {
    fn name() -> Self {
        static NUMBER: AtomicUsize = AtomicUsize::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let key = format!("tidegate-test-{}-{number}", std::process::id());
        Self { path: PathBuf::from(format!("/dev/shm/{key}")), key }
    }

    fn of(bytes: &[u8]) -> Self {
        let memory = Self::name();
        std::fs::write(&memory.path, bytes).unwrap();
        memory
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.path.is_dir() {
            std::fs::remove_dir(&self.path).unwrap();
        } else {
            std::fs::remove_file(&self.path).unwrap();
        }
    }
}

fn regions() -> Regions {
    Regions::new("tidegate-", 2, 100)
}

fn refused<T: std::fmt::Debug>(outcome: Result<T, RegionError>, code: Code, words: &str) {
    let error = outcome.unwrap_err();
    assert!(error.to_string().contains(words), "{error}");
    assert_eq!(error.code(), code, "{error}");
}

#[test]
fn bytes_go_out_of_a_region_and_into_it() {
    let memory = Memory::of(b"0123456789");
    let regions = regions();
    regions.register("r", &format!("/{}", memory.key), 2, 6).unwrap();
    let span = regions.span("r", 1, 3).unwrap();
    assert_eq!(span.read().unwrap(), "345");
    span.write(b"ab").unwrap();
    assert_eq!(std::fs::read(&memory.path).unwrap(), b"012ab56789");
    refused(span.write(b"abcd"), Code::InvalidArgument, "4 bytes from 1 on are not within");
    let nothing = regions.span("r", 6, 0).unwrap();
    assert_eq!(nothing.read().unwrap(), "");
    nothing.write(b"").unwrap();
    for (offset, size) in [(0, 7), (4, 3), (7, 0), (u64::MAX, 1), (0, u64::MAX)] {
        refused(regions.span("r", offset, size), Code::InvalidArgument, "which has 6");
    }
    refused(regions.span("q", 0, 1), Code::NotFound, "no region 'q'");
}

#[test]
fn a_file_that_is_cut_is_an_error_and_grows_no_further_than_its_region() {
    let memory = Memory::of(&[7; 50]);
    let regions = regions();
    regions.register("r", &memory.key, 0, 40).unwrap();
    let span = regions.span("r", 0, 40).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&memory.path).unwrap();
    file.set_len(10).unwrap();
    refused(span.read(), Code::InvalidArgument, "region 'r' is shorter");
    span.write(&[1; 40]).unwrap();
    assert_eq!(file.metadata().unwrap().len(), 40);
    assert_eq!(span.read().unwrap(), [1; 40].as_slice());
}

#[test]
fn keys_are_names_of_regular_files() {
    let regions = regions();
    let register = |key: &str| regions.register("r", key, 0, 1);
    for key in ["", "/", ".", "..", "/..", "../etc/passwd", "a/b", "//a", "a\0b", &"a".repeat(256)]
    {
        refused(register(key), Code::InvalidArgument, "expected the name of a file in /dev/shm");
    }
    refused(register("other"), Code::InvalidArgument, "begins with 'tidegate-'");
    refused(register("tidegate-nothing"), Code::NotFound, "there is no such shared memory");
    let (file, link, folder, pipe) =
        (Memory::of(b"0"), Memory::name(), Memory::name(), Memory::name());
    std::os::unix::fs::symlink(&file.path, &link.path).unwrap();
    std::fs::create_dir(&folder.path).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &pipe.path,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::RWXU,
        0,
    )
    .unwrap();
    for memory in [&link, &folder, &pipe] {
        refused(register(&memory.key), Code::InvalidArgument, "a regular file");
    }
    register(&file.key).unwrap();
}

#[test]
fn regions_are_bounded_in_size_and_number() {
    let memory = Memory::of(&[0; 200]);
    let regions = regions();
    let register = |name: &str, offset, size| regions.register(name, &memory.key, offset, size);
    for (offset, size, words) in [
        (0, 0, "expected 1 to 100"),
        (0, 101, "expected 1 to 100"),
        (101, 100, "which has 200"),
        (u64::MAX, 1, "which has 200"),
    ] {
        refused(register("r", offset, size), Code::InvalidArgument, words);
    }
    refused(register("", 0, 1), Code::InvalidArgument, "name");
    refused(register(&"n".repeat(1025), 0, 1), Code::InvalidArgument, "name");
    register("a", 100, 100).unwrap();
    assert!(regions.any_from(100) && !regions.any_from(101));
    refused(register("a", 0, 1), Code::Conflict, "registered already");
    register("b", 0, 1).unwrap();
    refused(register("c", 0, 1), Code::Conflict, "server.shared_memory.regions");
    let names = |name| {
        let status = regions.status(name).unwrap();
        status.into_iter().map(|region| region.name).collect::<Vec<_>>()
    };
    assert_eq!((names(None), names(Some("b"))), (vec!["a".into(), "b".into()], vec!["b".into()]));
    let held = regions.span("a", 0, 100).unwrap();
    assert_eq!((regions.unregister(Some("a")), regions.unregister(Some("a"))), (1, 0));
    refused(regions.status(Some("a")), Code::NotFound, "no region 'a'");
    assert_eq!(held.read().unwrap(), [0; 100].as_slice());
    register("c", 0, 1).unwrap();
    assert_eq!(regions.unregister(None), 2);
    assert!(regions.status(None).unwrap().is_empty());
}
