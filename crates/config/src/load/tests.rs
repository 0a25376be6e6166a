use std::path::Path;
use std::time::Duration;

use proptest::prelude::*;
use schemars::JsonSchema;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};

use super::*;
use crate::Finding;

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Settings {
    name: String,
    pool: Pool,
    replicas: Vec<Replica>,
    tags: Vec<String>,
    extra: Option<Pool>,
}

impl Default for Settings {
    fn default() -> Self {
        let pool = Pool {
            size: 7,
            ..Pool::default()
        };
        Self {
            name: "unnamed".to_owned(),
            pool,
            replicas: Vec::new(),
            tags: vec!["a".to_owned()],
            extra: None,
        }
    }
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Pool {
    size: u16,
    idle: u16,
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "duration"))]
    timeout: Duration,
    #[serde(skip_serializing)]
    #[schemars(with = "Option<String>")]
    password: Option<SecretString>,
}

impl Default for Pool {
    fn default() -> Self {
        Self {
            size: 50,
            idle: 5,
            timeout: Duration::from_secs(3),
            password: None,
        }
    }
}

#[derive(Debug, Deserialize, Serialize, JsonSchema)]
struct Replica {
    #[serde(skip_serializing)]
    #[schemars(with = "String")]
    dsn: SecretString,
    #[serde(default)]
    weight: u8,
}

fn validate(settings: &Settings, findings: &mut Findings) {
    if settings.pool.idle > settings.pool.size {
        findings.extend_under(
            "pool",
            [Finding::new("idle", "is more than `size`")
                .hint("lower it")
                .involving("size")],
        );
    }
}

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
}

const NO_VARIABLES: [(&str, &str); 0] = [];

/// One problem a line, the folder's name left out.
fn report(folder: &Folder, loader: Loader) -> String {
    let errors = loader.load(validate).unwrap_err().to_string();
    errors.replace(&format!("{}/", folder.0.path().display()), "")
}

fn yaml_report(text: &str) -> String {
    let folder = Folder::new();
    let path = folder.write("app.yaml", text);
    report(&folder, Loader::new().file(path).env_from("APP_", NO_VARIABLES))
}

#[test]
fn no_layers_give_the_defaults() {
    let loaded = Loader::new().load(validate).unwrap();
    assert_eq!(loaded.value.pool.size, 7);
    assert_eq!(loaded.source_of("pool.size"), Source::Default);
}

#[test]
fn flags_beat_variables_beat_files_beat_defaults() {
    let folder = Folder::new();
    let path = folder.write(
        "app.yaml",
        "name: file\npool:\n  size: 20\n  idle: 10\n  timeout: 9s\n",
    );
    let loaded = Loader::new()
        .flag("pool.timeout", "7s", "--timeout")
        .env_from(
            "APP_",
            [
                ("APP_POOL__IDLE", "8"),
                ("APP_POOL__TIMEOUT", "8s"),
                ("OTHER", "1"),
            ],
        )
        .file(&path)
        .load(validate)
        .unwrap();
    let pool = &loaded.value.pool;
    assert_eq!(
        (pool.size, pool.idle, pool.timeout),
        (20, 8, Duration::from_secs(7))
    );
    assert_eq!(
        loaded.source_of("pool.size"),
        Source::File { path, line: Some(3) }
    );
    assert_eq!(loaded.source_of("pool.idle").to_string(), "APP_POOL__IDLE");
    assert_eq!(loaded.source_of("pool.timeout").to_string(), "--timeout");
    assert_eq!(loaded.source_of("tags"), Source::Default);
}

#[test]
fn a_later_file_wins_key_by_key() {
    let folder = Folder::new();
    let base = folder.write("base.toml", "name = 'base'\n[pool]\nsize = 20\n");
    let local = folder.write("local.json", "{\"pool\": {\"size\": 30}}");
    let loaded = Loader::new().file(base).file(local).load(validate).unwrap();
    assert_eq!((loaded.value.name.as_str(), loaded.value.pool.size), ("base", 30));
}

#[test]
fn a_section_given_in_part_keeps_the_defaults_of_the_settings_around_it() {
    let folder = Folder::new();
    let path = folder.write("app.yaml", "pool:\n  idle: 1\n");
    // `Settings::default` says 7, `Pool::default` says 50.
    let loaded = Loader::new().file(path).load(validate).unwrap();
    assert_eq!(loaded.value.pool.size, 7);
    assert_eq!(loaded.source_of("pool.size"), Source::Default);
}

#[test]
fn an_unknown_nested_key_names_its_line_and_the_nearest_key() {
    assert_eq!(
        yaml_report("pool:\n  sise: 3\n"),
        "app.yaml:2: pool.sise: unknown key; did you mean `size`?"
    );
}

#[test]
fn an_unknown_key_like_no_other_lists_the_known_ones() {
    let report = yaml_report("pool:\n  zzzzzzzz: 3\n");
    assert_eq!(
        report,
        "app.yaml:2: pool.zzzzzzzz: unknown key; known here: idle, password, size, timeout"
    );
}

#[test]
fn an_unknown_variable_suggests_a_whole_variable() {
    let loader = Loader::new().env_from("APP_", [("APP_REPLICAS__0__DNS", "x"), ("APP_POL__SIZE", "1")]);
    assert_eq!(
        report(&Folder::new(), loader),
        "APP_POL__SIZE: pol: unknown key; did you mean `APP_POOL__SIZE`?\n\
         APP_REPLICAS__0__DNS: replicas.0.dns: unknown key; did you mean `APP_REPLICAS__0__DSN`?"
    );
}

#[test]
fn ignored_variables_are_no_problem() {
    let loader = Loader::new()
        .env_from("APP_", [("APP_LOG", "debug")])
        .ignore_env(["APP_LOG"]);
    loader.load(validate).unwrap();
}

#[test]
fn a_wrong_type_says_what_is_expected_and_what_is_there() {
    assert_eq!(
        yaml_report("name: 5\npool:\n  size: many\n  idle: true\ntags: one\nreplicas: 3\n"),
        "app.yaml:1: name: expected text, found the number 5; put it in quotes\n\
         app.yaml:3: pool.size: expected an integer, found text `many`\n\
         app.yaml:4: pool.idle: expected an integer, found `true`\n\
         app.yaml:5: tags: expected a list, found text `one`; write a list: `[a, b]`\n\
         app.yaml:6: replicas: expected a list, found the number 3"
    );
}

#[test]
fn a_bad_duration_is_respelled_when_that_parses() {
    assert_eq!(
        yaml_report("pool:\n  timeout: 5 minutess\n"),
        "app.yaml:2: pool.timeout: `5 minutess` is not a duration; did you mean `5 minutes`?"
    );
}

#[test]
fn a_duration_without_unit_asks_for_one() {
    assert_eq!(
        yaml_report("pool:\n  timeout: 60\n"),
        "app.yaml:2: pool.timeout: expected a duration, found the number 60; \
         write the unit: `60s` for seconds, `60ms` for milliseconds"
    );
}

#[test]
fn a_bare_zero_is_a_duration() {
    let folder = Folder::new();
    let path = folder.write("app.yaml", "pool:\n  timeout: 0\n");
    assert_eq!(
        Loader::new()
            .file(path)
            .load(validate)
            .unwrap()
            .value
            .pool
            .timeout,
        Duration::ZERO
    );
}

#[test]
fn a_number_out_of_range_names_the_range() {
    assert_eq!(
        yaml_report("pool:\n  size: 70000\n  idle: -1\n"),
        "app.yaml:2: pool.size: 70000 is out of range; it takes 0 to 65535\n\
         app.yaml:3: pool.idle: -1 is out of range; it takes 0 to 65535"
    );
}

#[test]
fn problems_of_all_layers_come_together_in_order() {
    let folder = Folder::new();
    let path = folder.write("app.yaml", "nmae: x\n");
    let loader = Loader::new()
        .flag("pool.timeout", "soon", "--timeout")
        .env_from("APP_", [("APP_POOL__SIZE", "big")])
        .file(path);
    assert_eq!(
        report(&folder, loader),
        "app.yaml:1: nmae: unknown key; did you mean `name`?\n\
         APP_POOL__SIZE: pool.size: expected an integer, found text `big`\n\
         --timeout: pool.timeout: `soon` is not a duration; \
         write a number and a unit: `100ms`, `90s`, `5m`, `1h`"
    );
}

#[test]
fn contradictions_come_with_other_problems_and_name_both_sources() {
    let folder = Folder::new();
    let path = folder.write("app.yaml", "nmae: x\npool:\n  idle: 9\n");
    let loader = Loader::new()
        .file(path)
        .env_from("APP_", [("APP_POOL__SIZE", "4")]);
    assert_eq!(
        report(&folder, loader),
        "app.yaml:1: nmae: unknown key; did you mean `name`?\n\
         app.yaml:3: pool.idle: is more than `size` (pool.size comes from APP_POOL__SIZE); lower it"
    );
}

#[test]
fn a_contradiction_with_a_value_that_is_wrong_itself_is_left_out() {
    let report = yaml_report("pool:\n  idle: 60\n  size: many\n");
    assert_eq!(
        report,
        "app.yaml:3: pool.size: expected an integer, found text `many`"
    );
}

#[test]
fn a_duplicate_key_names_both_lines() {
    assert_eq!(
        yaml_report("pool:\n  size: 1\n  idle: 1\n  size: 2\n"),
        "app.yaml:4: pool.size: this key is already set on line 2; keep one of the two"
    );
}

#[test]
fn nothing_where_a_value_belongs_is_wrong_but_an_empty_section_is_not() {
    let folder = Folder::new();
    let path = folder.write("app.yaml", "pool:\n#  size: 3\nextra:\n");
    let loaded = Loader::new().file(path).load(validate).unwrap();
    assert_eq!(loaded.value.pool.size, 7);
    assert!(loaded.value.extra.is_none());
    assert_eq!(
        yaml_report("name:\npool:\n  size: ~\n  password: ~\n"),
        "app.yaml:1: name: expected text, found nothing; remove the key to keep the default\n\
         app.yaml:3: pool.size: expected an integer, found nothing; remove the key to keep the default"
    );
}

#[test]
fn an_optional_section_left_empty_takes_keys_from_the_environment() {
    let folder = Folder::new();
    let path = folder.write("app.yaml", "extra:\n");
    let loader = Loader::new()
        .file(path)
        .env_from("APP_", [("APP_EXTRA__SIZE", "9")]);
    assert_eq!(loader.load(validate).unwrap().value.extra.unwrap().size, 9);
}

#[test]
fn a_value_under_which_another_layer_sets_keys_is_a_clash() {
    let folder = Folder::new();
    let path = folder.write("app.yaml", "pool: 5\n");
    let loader = Loader::new()
        .file(path)
        .env_from("APP_", [("APP_POOL__SIZE", "9")]);
    assert_eq!(
        report(&folder, loader),
        "app.yaml:1: pool: is a value here, but a section in APP_POOL__SIZE; \
         set the keys under it, or remove one of the two"
    );
}

#[test]
fn a_variable_for_a_section_and_one_for_its_key_is_a_clash() {
    let loader = Loader::new().env_from("APP_", [("APP_POOL__SIZE", "9"), ("APP_POOL", "{\"idle\": 1}")]);
    assert_eq!(
        report(&Folder::new(), loader),
        "APP_POOL__SIZE: pool.size: APP_POOL sets pool as a whole; remove one of the two"
    );
}

#[test]
fn a_missing_required_key_is_reported_where_its_section_begins() {
    assert_eq!(
        yaml_report("replicas:\n  - weight: 3\n"),
        "app.yaml:2: replicas.0.dsn: is missing; it takes text"
    );
}

#[test]
fn an_element_of_a_list_is_set_by_its_index() {
    let folder = Folder::new();
    let path = folder.write(
        "app.yaml",
        "replicas:\n  - dsn: one\n    weight: 1\n  - dsn: two\n",
    );
    let variables = [
        ("APP_REPLICAS__1__DSN", "changed"),
        ("APP_REPLICAS__2__DSN", "new"),
    ];
    let loaded = Loader::new()
        .file(path)
        .env_from("APP_", variables)
        .load(validate)
        .unwrap();
    let dsns: Vec<_> = loaded
        .value
        .replicas
        .iter()
        .map(|replica| replica.dsn.expose_secret())
        .collect();
    assert_eq!(dsns, ["one", "changed", "new"]);
    assert!(
        loaded
            .source_of("replicas.0.dsn")
            .to_string()
            .ends_with("app.yaml:2")
    );
    assert!(
        loaded
            .source_of("replicas.0.weight")
            .to_string()
            .ends_with("app.yaml:3")
    );
    assert_eq!(
        loaded.source_of("replicas.1.dsn").to_string(),
        "APP_REPLICAS__1__DSN"
    );
}

#[test]
fn an_index_beyond_the_end_of_a_list_names_the_next_one() {
    let loader = Loader::new().env_from("APP_", [("APP_TAGS__3", "x")]);
    assert_eq!(
        report(&Folder::new(), loader),
        "APP_TAGS__3: tags.3: leaves a gap: the list has 1 elements; the next index is 1"
    );
}

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
