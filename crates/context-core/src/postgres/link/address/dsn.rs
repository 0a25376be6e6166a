//! The options of a DSN that the client does not understand the way we do.

/// What `sslmode` asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Disable,
    Prefer,
    Verify,
}

/// Options of libpq that would be ignored or refused with less helpful words.
const ELSEWHERE: [(&str, &str); 8] = [
    ("sslrootcert", "set ca_file beside the DSN instead"),
    ("sslcert", "client certificates are not supported: use a password"),
    ("sslkey", "client certificates are not supported: use a password"),
    ("sslcrl", "revocation lists are not supported"),
    ("service", "name host, port and database"),
    (
        "passfile",
        "put the password into the DSN, by env:NAME or file:PATH",
    ),
    ("gssencmode", "only TLS is supported: remove it"),
    ("krbsrvname", "Kerberos is not supported: remove it"),
];

/// Splits the DSN into what the client understands and the `sslmode`.
///
/// # Errors
/// What is wrong, without any value.
pub(super) fn take_sslmode(dsn: &str) -> Result<(String, Mode), String> {
    let is_url = ["postgres://", "postgresql://"]
        .iter()
        .any(|scheme| dsn.starts_with(scheme));
    let (rest, options) = if is_url { split_url(dsn) } else { split_pairs(dsn)? };
    let mut mode = Mode::Prefer;
    for (name, value) in &options {
        if name == "sslmode" {
            mode = parse(value)?;
        } else if let Some((name, instead)) = ELSEWHERE.iter().find(|(known, _)| known == name) {
            return Err(format!("has the option {name}; {instead}"));
        }
    }
    Ok((rest, mode))
}

fn parse(word: &str) -> Result<Mode, String> {
    match word {
        "disable" => Ok(Mode::Disable),
        "prefer" => Ok(Mode::Prefer),
        "require" | "verify-full" => Ok(Mode::Verify),
        "verify-ca" => Err("has sslmode=verify-ca, which is not supported: use verify-full".into()),
        "allow" => Err("has sslmode=allow, which is not supported: use prefer".into()),
        _ => Err("has an sslmode that is none of disable, prefer, require, verify-full".into()),
    }
}

type Options = Vec<(String, String)>;

/// The URL without its `sslmode`, and its options. Their values are plain words, so nothing is decoded.
fn split_url(dsn: &str) -> (String, Options) {
    let Some((server, query)) = dsn.split_once('?') else {
        return (dsn.to_owned(), Options::new());
    };
    let pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let options = pairs
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| !pair.is_empty() && !pair.starts_with("sslmode="))
        .collect();
    let rest = if kept.is_empty() {
        server.to_owned()
    } else {
        format!("{server}?{}", kept.join("&"))
    };
    (rest, options)
}

/// `key=value` pairs as libpq reads them: blanks around `=`, quotes and backslashes in values.
fn split_pairs(dsn: &str) -> Result<(String, Options), String> {
    let mut options = Options::new();
    let mut rest = String::new();
    let mut left = dsn.trim_start();
    while !left.is_empty() {
        let (name, after) = left
            .split_once('=')
            .ok_or("has something that is no key=value pair")?;
        let after = after.trim_start();
        let (value, length) = value(after)?;
        let (raw, tail) = after
            .split_at_checked(length)
            .ok_or("has a value that is cut off")?;
        let name = name.trim_end();
        if name != "sslmode" {
            rest.push_str(name);
            rest.push('=');
            rest.push_str(raw);
            rest.push(' ');
        }
        options.push((name.to_owned(), value));
        left = tail.trim_start();
    }
    Ok((rest, options))
}

/// A value and how many bytes of the text it takes.
fn value(text: &str) -> Result<(String, usize), String> {
    let quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut chars = text.char_indices().skip(usize::from(quoted));
    while let Some((at, char)) = chars.next() {
        match char {
            '\'' if quoted => return Ok((value, at + 1)),
            '\\' => value.push(chars.next().ok_or("ends with a backslash")?.1),
            char if char.is_whitespace() && !quoted => return Ok((value, at)),
            char => value.push(char),
        }
    }
    if quoted {
        return Err("has a quote that is not closed".into());
    }
    Ok((value, text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sslmode_is_taken_out_of_a_url() {
        let taken = |dsn: &str| take_sslmode(dsn).unwrap();
        assert_eq!(taken("postgres://h/d"), ("postgres://h/d".into(), Mode::Prefer));
        assert_eq!(
            taken("postgres://h/d?sslmode=disable"),
            ("postgres://h/d".into(), Mode::Disable)
        );
        assert_eq!(
            taken("postgresql://h/d?a=b&sslmode=verify-full&c=d"),
            ("postgresql://h/d?a=b&c=d".into(), Mode::Verify)
        );
    }

    #[test]
    fn sslmode_is_taken_out_of_pairs() {
        let taken = |dsn: &str| take_sslmode(dsn).unwrap();
        assert_eq!(
            taken(r"host=h password = 'a \' sslmode=disable' sslmode = 'require' dbname=d"),
            (
                r"host=h password='a \' sslmode=disable' dbname=d ".into(),
                Mode::Verify
            )
        );
        assert_eq!(taken(r"host=h password=a\ b").0, r"host=h password=a\ b ");
    }

    #[test]
    fn what_is_wrong_is_said_without_the_value() {
        for dsn in [
            "host=h password='geheim",
            "host=h geheim",
            "postgres://u:geheim@h/d?sslmode=geheim",
            "postgres://u:geheim@h/d?sslrootcert=geheim",
            "host=h sslmode=verify-ca password=geheim",
            r"host=h password=geheim\",
        ] {
            let problem = take_sslmode(dsn).unwrap_err();
            assert!(!problem.contains("geheim"), "{problem}");
        }
    }
}
