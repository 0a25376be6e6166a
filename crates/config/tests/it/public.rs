use contextkeep_config::{KeyPath, Loader, ProblemKind, Source, env, json_schema, reference};
use proptest::prelude::*;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Settings {
    port: u16,
    name: String,
    child: Option<Box<Self>>,
}

#[test]
fn the_process_environment_is_a_layer() {
    // Cargo sets these two for every test.
    let expected = env::var("CARGO_PKG_NAME").unwrap();
    let loader = Loader::new().env("CARGO_PKG_").ignore_env(
        [
            "AUTHORS",
            "DESCRIPTION",
            "HOMEPAGE",
            "LICENSE",
            "LICENSE_FILE",
            "README",
            "REPOSITORY",
            "RUST_VERSION",
        ]
        .into_iter()
        .chain([
            "VERSION",
            "VERSION_MAJOR",
            "VERSION_MINOR",
            "VERSION_PATCH",
            "VERSION_PRE",
        ])
        .map(|name| format!("CARGO_PKG_{name}")),
    );
    let loaded = loader.load(|_: &Settings, _| {}).unwrap();
    assert_eq!(expected.to_str(), Some(loaded.value.name.as_str()));
    assert_eq!(
        loaded.source_of("name"),
        Source::Environment {
            variable: "CARGO_PKG_NAME".to_owned()
        }
    );
}

#[test]
fn problems_are_data() {
    let errors = Loader::new()
        .flag("port", "http", "--port")
        .load(|_: &Settings, _| {})
        .unwrap_err();
    let [problem] = errors.problems() else {
        panic!("one problem, not {errors:?}")
    };
    assert_eq!(problem.kind, ProblemKind::WrongType);
    assert_eq!(problem.path, KeyPath::from("port"));
    assert_eq!(
        problem.source,
        Source::Flag {
            flag: "--port".to_owned()
        }
    );
}

#[test]
fn findings_of_a_crate_that_does_not_know_this_one_convert() {
    let errors = Loader::new()
        .flag("port", "0", "--port")
        .load(|_: &Settings, findings| {
            findings.push(("name", "is empty"));
            findings.extend_under("child", [("port", "is zero", "choose one")]);
            findings.extend_under("", [("port".to_owned(), "is zero".to_owned())]);
        })
        .unwrap_err();
    assert_eq!(
        errors.to_string(),
        "--port: port: is zero\nchild.port: is zero; choose one\nname: is empty"
    );
}

#[test]
fn a_type_that_contains_itself_has_a_finite_page_and_schema() {
    assert!(reference::<Settings>("P_").len() < 100_000);
    assert!(json_schema::<Settings>().is_object());
    let loaded = Loader::new()
        .env_from("P_", [("P_CHILD__CHILD__PORT", "3")])
        .load(|_: &Settings, _| {})
        .unwrap();
    assert_eq!(loaded.value.child.unwrap().child.unwrap().port, 3);
}

proptest! {
    /// What a path shows, it reads back.
    #[test]
    fn paths_read_what_they_show(segments in prop::collection::vec("[a-z0-9_. -]{1,6}", 0..5)) {
        let path: KeyPath = segments.into_iter().collect();
        prop_assert_eq!(KeyPath::from(path.to_string()), path);
    }

    /// Whatever a JSON file holds, loading ends in settings or in problems that have a place.
    #[test]
    fn any_json_loads_or_is_reported(port in ".{0,8}", key in "[a-z]{1,5}", depth in 0_usize..80) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.json");
        let value = serde_json::json!({ "port": port, key: "x" }).to_string();
        let text = format!("{}{value}{}", "{\"child\":".repeat(depth), "}".repeat(depth));
        std::fs::write(&path, text).unwrap();
        if let Err(errors) = Loader::new().file(&path).load(|_: &Settings, _| {}) {
            for problem in errors.problems() {
                prop_assert!(matches!(&problem.source, Source::File { line: Some(1), .. }), "{problem:?}");
            }
        }
    }
}
