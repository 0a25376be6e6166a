use super::*;

#[test]
fn versions_are_compared_as_numbers_newest_first() {
    let root = tempfile::tempdir().unwrap();
    for name in ["9", "13", "15", "100", "common"] {
        std::fs::create_dir(root.path().join(name)).unwrap();
    }
    let found = versioned(root.path());
    let expected = ["100", "15", "13"].map(|version| root.path().join(version).join("bin"));
    assert_eq!(found, expected);
}

#[test]
fn a_missing_root_has_no_versions() {
    assert!(versioned(Path::new("/nonexistent")).is_empty());
}

#[test]
fn the_major_version_is_read_from_either_banner() {
    assert_eq!(
        major_version("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64"),
        Some(7)
    );
    assert_eq!(major_version("Valkey server v=8.1.0 sha=0"), Some(8));
    assert_eq!(major_version("something else"), None);
}

#[test]
fn only_an_executable_file_is_a_program() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("tool");
    std::fs::write(&file, "").unwrap();
    assert!(!is_program(&file) && !is_program(folder.path()));
    assert!(is_program(Path::new("/bin/sh")));
}
