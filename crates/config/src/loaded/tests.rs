use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use crate::Loader;

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(default)]
struct Settings {
    name: String,
    ports: Vec<u16>,
    #[serde(skip_serializing)]
    #[schemars(with = "Option<String>")]
    token: Option<SecretString>,
    /// Marked, but the author forgot to leave it out of `Serialize`.
    #[schemars(extend("writeOnly" = true))]
    careless: String,
    replicas: Vec<Replica>,
}

impl Default for Settings {
    fn default() -> Self {
        let careless = "default-secret".to_owned();
        Self {
            name: "a".to_owned(),
            ports: vec![1, 2],
            token: None,
            careless,
            replicas: Vec::new(),
        }
    }
}

#[derive(Deserialize, Serialize, JsonSchema)]
struct Replica {
    #[serde(skip_serializing)]
    #[schemars(with = "String")]
    #[expect(dead_code, reason = "only its absence from the report matters")]
    dsn: SecretString,
}

#[test]
fn show_gives_every_key_its_value_and_source_and_redacts() {
    let variables = [
        ("P_TOKEN", "s3cret"),
        ("P_REPLICAS__0__DSN", "s3cret"),
        ("P_PORTS", "80,443"),
    ];
    let loaded = Loader::new()
        .env_from("P_", variables)
        .load(|_: &Settings, _| {})
        .unwrap();
    let expected = [
        "careless       = \"<redacted>\" # default",
        "name           = \"a\"          # default",
        "ports          = [80,443]     # P_PORTS",
        "replicas.0.dsn = \"<redacted>\" # P_REPLICAS__0__DSN",
        "token          = \"<redacted>\" # P_TOKEN",
        "",
    ];
    assert_eq!(loaded.show(), expected.join("\n"));
}

#[test]
fn a_secret_that_is_not_set_has_no_entry() {
    let loaded = Loader::new().load(|_: &Settings, _| {}).unwrap();
    assert!(
        loaded
            .entries()
            .iter()
            .all(|entry| entry.path.to_string() != "token")
    );
}
