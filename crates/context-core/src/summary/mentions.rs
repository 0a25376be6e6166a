//! What is mentioned and must not be got wrong: ids, amounts, dates, paths, addresses.

/// Longest piece that is taken for a mention, in bytes; longer ones are data.
const BYTES_MAX: usize = 80;
/// Shortest, in characters: one or two digits are a count of something and mean nothing alone.
const CHARS_MIN: usize = 3;

/// The mentions in a text, in order, repetitions included.
pub(super) fn of(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_boundary)
        .map(trimmed)
        .filter(|piece| is_mention(piece))
}

fn is_boundary(character: char) -> bool {
    character.is_whitespace() || "\"'`“”‘’«»()[]{}<>,;|*\\=".contains(character)
}

fn trimmed(piece: &str) -> &str {
    piece.trim_matches(|character: char| ".:!?…-–".contains(character))
}

fn is_mention(piece: &str) -> bool {
    if piece.len() > BYTES_MAX || piece.chars().count() < CHARS_MIN {
        return false;
    }
    let has_digit = piece.chars().any(|character| character.is_ascii_digit());
    has_digit || is_address(piece) || is_path(piece)
}

fn is_address(piece: &str) -> bool {
    let mail = piece.split_once('@');
    let is_mail = mail.is_some_and(|(name, host)| !name.is_empty() && host.contains('.'));
    piece.starts_with("http://") || piece.starts_with("https://") || is_mail
}

/// `src/main.rs`, `/etc/hosts`, `main.rs`; not `and/or`.
fn is_path(piece: &str) -> bool {
    let file = piece.rsplit('/').next().unwrap_or_default();
    let has_suffix = file.rsplit_once('.').is_some_and(|(stem, suffix)| {
        !stem.is_empty()
            && (1..=5).contains(&suffix.len())
            && suffix.chars().all(|c| c.is_ascii_alphanumeric())
    });
    piece
        .chars()
        .all(|c| c.is_ascii_alphanumeric() || "/._-~".contains(c))
        && (has_suffix || piece.starts_with('/') || piece.matches('/').count() > 1)
}
