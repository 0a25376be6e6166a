use super::*;

fn urls() -> Urls {
    Urls {
        pg_primary: "postgres://p".to_owned(),
        pg_replicas: vec!["postgres://r1".to_owned(), "postgres://r2".to_owned()],
        redis: "redis://n".to_owned(),
        redis_cluster: vec!["redis://a".to_owned(), "redis://b".to_owned()],
    }
}

#[test]
fn urls_survive_the_environment() {
    let env = urls().to_env();
    let get = |key: &str| {
        env.iter()
            .find(|(name, _)| *name == key)
            .map(|(_, value)| value.clone())
    };
    assert_eq!(Urls::read(get).unwrap(), Some(urls()));
}

#[test]
fn no_variable_means_no_external_services() {
    assert_eq!(Urls::read(|_| None).unwrap(), None);
}

#[test]
fn some_variables_without_the_others_are_an_error_that_names_them() {
    let get = |key: &str| (key == keys::REDIS).then(|| "redis://n".to_owned());
    let error = Urls::read(get).unwrap_err().to_string();
    assert!(
        error.contains(keys::PG_PRIMARY) && !error.contains("CONTEXTKEEP_TEST_REDIS,"),
        "{error}"
    );
}

#[test]
fn services_survive_their_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("services.json");
    Services::elsewhere(Mode::External, urls()).save(&path).unwrap();
    let read = Services::load(&path).unwrap();
    assert_eq!((read.mode, read.urls), (Mode::External, urls()));
    assert!(read.postgres.is_none() && read.redis.is_none() && read.redis_cluster.is_none());
}

#[test]
fn unique_names_differ_and_need_no_quoting() {
    let (a, b) = (unique_name("t"), unique_name("t"));
    assert_ne!(a, b);
    assert!(
        a.starts_with("t_")
            && a.chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'),
        "{a}"
    );
}

#[test]
fn a_url_gets_another_database_and_keeps_its_parameters() {
    assert_eq!(
        with_database("postgres://u@h:1/old", "new"),
        "postgres://u@h:1/new"
    );
    assert_eq!(
        with_database("postgres://u@h:1/old?sslmode=disable", "new"),
        "postgres://u@h:1/new?sslmode=disable"
    );
}
