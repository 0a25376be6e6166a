use super::*;

fn fixed(name: &str, value: &str) -> Variables {
    Variables(Some(vec![(name.into(), value.into())]))
}

fn in_file(content: &[u8]) -> Result<String, String> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("secret"), content).unwrap();
    let message = |unresolved: Unresolved| {
        unresolved
            .message
            .replace(&*folder.path().to_string_lossy(), "DIR")
    };
    resolve("file:secret", folder.path(), &Variables(Some(Vec::new()))).map_err(message)
}

#[test]
fn a_text_without_reference_is_the_secret() {
    assert_eq!(
        resolve("postgres://a:b@c", Path::new(""), &Variables::default()).unwrap(),
        "postgres://a:b@c"
    );
}

#[test]
fn a_variable_is_taken_as_it_is() {
    assert_eq!(
        resolve("env:A", Path::new(""), &fixed("A", " x\n")).unwrap(),
        " x\n"
    );
}

#[test]
fn an_empty_variable_is_no_secret() {
    let unresolved = resolve("env:A", Path::new(""), &fixed("A", "")).unwrap_err();
    assert_eq!(unresolved.message, "the variable A is empty");
}

#[test]
fn one_line_break_at_the_end_of_a_file_is_no_part_of_the_secret() {
    assert_eq!(in_file(b"x\n").unwrap(), "x");
    assert_eq!(in_file(b"x\r\n").unwrap(), "x");
    assert_eq!(in_file(b" x \n\n").unwrap(), " x \n");
    assert_eq!(in_file(b"x").unwrap(), "x");
}

#[test]
fn a_file_that_can_be_no_secret_says_why() {
    assert_eq!(
        in_file(b"\n").unwrap_err(),
        "the secret's file DIR/secret is empty"
    );
    assert_eq!(
        in_file(b"\xff").unwrap_err(),
        "the secret's file DIR/secret is not UTF-8 from byte 0 on"
    );
    let large = vec![b'x'; 64 * 1024 + 1];
    assert_eq!(
        in_file(&large).unwrap_err(),
        "the secret's file DIR/secret is larger than 65536 bytes"
    );
}
