use super::*;

const KEY: &str = "context_manager.database.dsn";

fn parse(dsn: &str, ca_file: Option<&Path>) -> Result<Address> {
    Address::parse(KEY, &dsn.into(), ca_file, Duration::from_secs(2))
}

#[test]
fn urls_and_pairs_are_understood_and_shown_without_the_password() {
    for dsn in [
        "postgres://me:geheim@db.example:5433/things",
        "host=db.example port=5433 user=me password='geheim' dbname=things",
    ] {
        let address = parse(dsn, None).unwrap();
        assert_eq!(address.to_string(), "me@db.example:5433/things");
        assert!(!format!("{address:?}").contains("geheim"));
        assert_eq!(address.config.get_password(), Some("geheim".as_bytes()));
        assert_eq!(address.config.get_application_name(), Some(APPLICATION_NAME));
        assert_eq!(
            address.config.get_connect_timeout(),
            Some(&Duration::from_secs(2))
        );
        assert_eq!(address.config.get_tcp_user_timeout(), Some(&TCP_USER_TIMEOUT));
        assert!(matches!(address.encryption, Encryption::IfOffered(_)));
    }
    let several = parse("postgres://me@a,b:7/d", None).unwrap();
    assert_eq!(
        (several.hosts(), several.to_string().as_str()),
        (2, "me@a:5432,b:7/d")
    );
}

#[test]
fn the_dsn_s_own_words_win() {
    let dsn = "postgres://me@h/d?application_name=mine&connect_timeout=7&sslmode=disable";
    let address = parse(dsn, None).unwrap();
    assert_eq!(address.config.get_application_name(), Some("mine"));
    assert_eq!(
        address.config.get_connect_timeout(),
        Some(&Duration::from_secs(7))
    );
    assert!(matches!(address.encryption, Encryption::Never(_)));
}

#[test]
fn what_is_wrong_names_the_key_and_shows_no_secret() {
    for dsn in [
        "",
        "geheim",
        "mysql://me:geheim@h/d",
        "postgres://me:geheim@h:port/d",
        "postgres://me:geheim@h/d?unknown=geheim",
        "host=h password=ge heim=geheim",
        "host=h password='geheim",
        "user=me password=geheim",
        "postgres://me:geheim@h/d?sslmode=verify-ca",
        "postgres://me:geheim@h/d?sslrootcert=/geheim",
    ] {
        let error = parse(dsn, None).unwrap_err();
        let text = format!("{error} {error:?} {:?}", error.hint());
        assert!(text.contains(KEY), "{dsn}: {text}");
        assert!(!text.contains("geheim"), "{dsn}: {text}");
        assert_eq!(error.code(), "invalid");
    }
}

#[test]
fn a_ca_file_has_to_be_one_and_to_be_used() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, "no certificate").unwrap();
    let verified = "postgres://me@h/d?sslmode=verify-full";
    for (dsn, file, key, word) in [
        (
            verified,
            folder.path().join("absent.pem"),
            "context_manager.database.ca_file",
            "absent.pem",
        ),
        (
            verified,
            file.clone(),
            "context_manager.database.ca_file",
            "no certificate",
        ),
        ("postgres://me@h/d", file.clone(), KEY, "verifies nothing"),
        ("postgres://me@h/d?sslmode=disable", file, KEY, "verifies nothing"),
    ] {
        let text = parse(dsn, Some(&file)).unwrap_err().to_string();
        assert!(text.starts_with(key) && text.contains(word), "{text}");
    }
}
