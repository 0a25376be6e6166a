//! Files that cannot be read, and secrets.

use super::*;

#[test]
fn secrets_come_from_variables_and_files_next_to_the_configuration() {
    let folder = Folder::new();
    folder.write("secret", "from file\n");
    let path = folder.write(
        "app.yaml",
        "pool:\n  password: env:PW\nreplicas:\n  - dsn: file:secret\n",
    );
    let loaded = Loader::new()
        .file(path)
        .env_from("APP_", [("PW", "from env")])
        .load(validate)
        .unwrap();
    assert_eq!(
        loaded.value.pool.password.as_ref().unwrap().expose_secret(),
        "from env"
    );
    assert_eq!(
        loaded.value.replicas.first().unwrap().dsn.expose_secret(),
        "from file"
    );
    let shown = format!("{}{loaded:?}", loaded.show());
    assert!(
        shown.contains("pool.password") && shown.contains("<redacted>"),
        "{shown}"
    );
    assert!(
        !shown.contains("from env") && !shown.contains("from file"),
        "{shown}"
    );
}

#[test]
fn a_secret_that_is_not_there_is_a_problem_of_its_key() {
    assert_eq!(
        yaml_report("pool:\n  password: env:NOPE\nreplicas:\n  - dsn: 'env:'\n"),
        "app.yaml:2: pool.password: the variable NOPE is not set; set it, or use `file:PATH`\n\
         app.yaml:4: replicas.0.dsn: `env:` names no variable; write `env:NAME`"
    );
}

#[test]
fn no_report_holds_the_value_of_a_secret() {
    let folder = Folder::new();
    let path = folder.write(
        "app.yaml",
        "pool:\n  password: 31337\n  passwrod: hunter2\nreplicas:\n  - dsn: [hunter2]\n",
    );
    let report = report(&folder, Loader::new().file(path).env_from("APP_", NO_VARIABLES));
    assert_eq!(report.lines().count(), 3, "{report}");
    assert!(
        !report.contains("hunter2") && !report.contains("31337"),
        "{report}"
    );
}

#[test]
fn a_missing_required_file_is_a_problem_and_an_optional_one_is_not() {
    Loader::new()
        .optional_file("nowhere.yaml")
        .load(validate)
        .unwrap();
    let report = report(&Folder::new(), Loader::new().file("nowhere.yaml"));
    assert_eq!(report, "nowhere.yaml: does not exist; check the path");
}

#[test]
fn unreadable_files_say_why() {
    let folder = Folder::new();
    std::fs::create_dir(folder.0.path().join("dir.yaml")).unwrap();
    folder.write("latin.yaml", b"name: caf\xe9\n");
    folder.write("big.json", vec![b' '; 100]);
    folder.write("app.ini", "x");
    let path = |name: &str| folder.0.path().join(name);
    let loader = Loader::new()
        .max_file_bytes(99)
        .file(path("app.ini"))
        .file(path("big.json"))
        .file(path("dir.yaml"))
        .file(path("latin.yaml"));
    assert_eq!(
        report(&folder, loader),
        "app.ini: is of an unknown kind; name it .yaml, .yml, .toml or .json: the extension says how to read it\n\
         big.json: is larger than 99 bytes; is it the right file?\n\
         dir.yaml: is a directory; name the file in it\n\
         latin.yaml: is not UTF-8 from byte 9 on; save it as UTF-8"
    );
}

#[test]
fn an_unreadable_file_does_not_hide_the_problems_of_other_layers() {
    let loader = Loader::new()
        .file("nowhere.yaml")
        .env_from("APP_", [("APP_NMAE", "x")]);
    let report = report(&Folder::new(), loader);
    assert_eq!(report.lines().count(), 2, "{report}");
}

#[test]
fn a_file_that_holds_no_section_is_a_wrong_type() {
    assert_eq!(
        yaml_report("- 1\n- 2\n"),
        "app.yaml:1: the file must hold a section; write `key: value` pairs"
    );
}

#[test]
fn an_empty_file_says_nothing() {
    let folder = Folder::new();
    let path = folder.write("app.yaml", "# nothing yet\n");
    Loader::new().file(path).load(validate).unwrap();
}

#[test]
fn the_loader_does_not_print_values() {
    let loader = Loader::new()
        .flag("name", "hunter2", "--name")
        .env_from("APP_", [("APP_NAME", "hunter2")]);
    let shown = format!("{loader:?}");
    assert!(shown.contains("--name") && !shown.contains("hunter2"), "{shown}");
}

#[test]
fn a_relative_secret_file_of_a_variable_starts_at_the_working_directory() {
    let loader = Loader::new().env_from("APP_", [("APP_POOL__PASSWORD", "file:no/such/file")]);
    assert_eq!(
        report(&Folder::new(), loader),
        "APP_POOL__PASSWORD: pool.password: the secret's file no/such/file does not exist; \
         a relative path starts at the configuration file's folder"
    );
    assert!(
        Path::new("Cargo.toml").exists(),
        "tests run in the package's folder"
    );
}

proptest! {
    /// The highest layer that sets a key wins, and is named as its source, for every set of layers.
    #[test]
    fn the_highest_layer_that_sets_a_key_wins(first: bool, second: bool, variable: bool, flag: bool) {
        let folder = Folder::new();
        let mut loader = Loader::new();
        let mut expected = (7, "default".to_owned());
        for (set, size, name) in [(first, 1, "one.toml"), (second, 2, "two.yaml")] {
            if set {
                let text = if size == 1 { "pool.size = 1\n" } else { "pool: {size: 2}\n" };
                let path = folder.write(name, text);
                expected = (size, format!("{}:1", path.display()));
                loader = loader.file(path);
            }
        }
        if flag {
            loader = loader.flag("pool.size", "4", "--size");
        }
        if variable {
            loader = loader.env_from("APP_", [("APP_POOL__SIZE", "3")]);
            expected = (3, "APP_POOL__SIZE".to_owned());
        }
        if flag {
            expected = (4, "--size".to_owned());
        }
        let loaded = loader.load(|_: &Settings, _| {}).unwrap();
        prop_assert_eq!((loaded.value.pool.size, loaded.source_of("pool.size").to_string()), expected);
    }
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_not_utf_8_is_a_problem_of_its_key() {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;

    let value = OsString::from_vec(vec![0xff]);
    let loader = Loader::new().env_from("APP_", [(OsString::from("APP_POOL__SIZE"), value)]);
    assert_eq!(
        report(&Folder::new(), loader),
        "APP_POOL__SIZE: pool.size: is not UTF-8"
    );
}

#[test]
fn a_large_file_on_one_line_loads() {
    let folder = Folder::new();
    let tags = vec!["\"x\""; 50_000].join(",");
    let path = folder.write("app.json", format!("{{\"tags\": [{tags}]}}"));
    assert_eq!(
        Loader::new().file(path).load(validate).unwrap().value.tags.len(),
        50_000
    );
}
