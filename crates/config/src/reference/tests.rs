use std::collections::BTreeMap;
use std::time::Duration;

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::*;

#[derive(Deserialize, Serialize, JsonSchema)]
struct Settings {
    /// What it is called.
    name: String,
    pool: Pool,
    /// Where reads may go.
    replicas: Vec<Replica>,
    upstreams: BTreeMap<String, Replica>,
    level: Level,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            name: "a|b".to_owned(),
            pool: Pool {
                size: 9,
                wait: Duration::from_secs(90),
            },
            replicas: Vec::new(),
            upstreams: BTreeMap::new(),
            level: Level::Off,
        }
    }
}

/// Connections that are kept.
#[derive(Deserialize, Serialize, JsonSchema)]
struct Pool {
    /// How many.
    #[schemars(range(min = 1))]
    size: u8,
    /// How long a caller
    /// waits.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String", extend("format" = "duration"))]
    wait: Duration,
}

#[derive(Deserialize, Serialize, JsonSchema)]
struct Replica {
    /// Where it is.
    #[serde(skip_serializing)]
    #[schemars(with = "String")]
    #[expect(dead_code, reason = "only its row matters")]
    dsn: SecretString,
}

#[derive(Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Level {
    /// Nothing is written.
    Off,
    /// Everything is written.
    On,
}

#[test]
fn the_page_has_a_table_a_section_and_a_row_a_key() {
    let expected = "\
| key | takes | default | variable | what it changes |
| --- | --- | --- | --- | --- |
| `level` | `off`, `on` | `off` | `P_LEVEL` | `off`: Nothing is written. `on`: Everything is written. |
| `name` | text | `a\\|b` | `P_NAME` | What it is called. |

## `pool`

Connections that are kept.

| key | takes | default | variable | what it changes |
| --- | --- | --- | --- | --- |
| `size` | integer, 1 to 255 | `9` | `P_POOL__SIZE` | How many. |
| `wait` | duration | `1m 30s` | `P_POOL__WAIT` | How long a caller waits. |

## `replicas.0`

Where reads may go.

| key | takes | default | variable | what it changes |
| --- | --- | --- | --- | --- |
| `dsn` | secret: text, `env:NAME` or `file:PATH` | required | `P_REPLICAS__0__DSN` | Where it is. |

## `upstreams.<name>`

| key | takes | default | variable | what it changes |
| --- | --- | --- | --- | --- |
| `dsn` | secret: text, `env:NAME` or `file:PATH` | required | `P_UPSTREAMS__<NAME>__DSN` | Where it is. |

";
    assert_eq!(reference::<Settings>("P_"), expected);
}

#[derive(Deserialize, Serialize, JsonSchema, Default)]
struct Variants {
    auth: Auth,
    limiter: Limiter,
}

/// Who may come in.
#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(tag = "kind", rename_all = "snake_case")]
enum Auth {
    /// Everyone.
    #[default]
    Open,
    /// Who has the token.
    Token {
        /// At least so many characters.
        length: u8,
    },
}

#[derive(Deserialize, Serialize, JsonSchema, Default)]
#[serde(rename_all = "snake_case")]
enum Limiter {
    #[default]
    Off,
    Fixed {
        /// Requests a second.
        rate: u64,
    },
}

#[test]
fn the_variants_of_a_section_have_a_table_each() {
    let expected = "\
## `auth` (`kind: open`)

Everyone.

| key | takes | default | variable | what it changes |
| --- | --- | --- | --- | --- |
| `kind` | `open` | required | `P_AUTH__KIND` |  |

## `auth` (`kind: token`)

Who has the token.

| key | takes | default | variable | what it changes |
| --- | --- | --- | --- | --- |
| `kind` | `token` | required | `P_AUTH__KIND` |  |
| `length` | integer, 0 to 255 | required | `P_AUTH__LENGTH` | At least so many characters. |

## `limiter`

`off`, or a section:

## `limiter.fixed`

| key | takes | default | variable | what it changes |
| --- | --- | --- | --- | --- |
| `rate` | integer, at least 0 | required | `P_LIMITER__FIXED__RATE` | Requests a second. |

";
    assert_eq!(reference::<Variants>("P_"), expected);
}
