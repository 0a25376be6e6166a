//! The little of the protocol that a read needs: commands of several words, and answers of one line or of several strings
//! (RESP2, which a connection speaks until it is told otherwise).

use std::ops::Range;

/// No line of an answer is longer.
const LONGEST_LINE: usize = 4096;
/// No string of an answer is longer: entries from `Options::large_from` on lie in keys of their own.
const LONGEST_STRING: usize = 64 << 20;

/// Why an answer is none.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Odd {
    /// The server said no, and why. Its next answer is as good as any.
    Refused(String),
    /// It is not what was asked for. What comes after it can't be told apart.
    Garbled,
}

/// Begins a command of so many words.
pub(super) fn command(out: &mut Vec<u8>, words: usize) {
    count(out, b'*', words);
}

/// The next word of a command, put together from its parts.
pub(super) fn word<const PARTS: usize>(out: &mut Vec<u8>, parts: [&[u8]; PARTS]) {
    count(out, b'$', parts.iter().map(|part| part.len()).sum());
    for part in parts {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(b"\r\n");
}

fn count(out: &mut Vec<u8>, sign: u8, number: usize) {
    out.push(sign);
    out.extend_from_slice(Digits::of(number).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// A number's digits. By hand: a read writes five of them, and formatting costs ten times as much.
pub(super) struct Digits {
    bytes: [u8; 20],
    from: usize,
}

impl Digits {
    pub(super) fn of(number: usize) -> Self {
        let mut digits = Self {
            bytes: [b'0'; 20],
            from: 20,
        };
        let mut left = number;
        for (place, byte) in digits.bytes.iter_mut().enumerate().rev() {
            *byte = b'0' + u8::try_from(left % 10).unwrap_or(0);
            left /= 10;
            digits.from = place;
            if left == 0 {
                break;
            }
        }
        digits
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(self.from..).unwrap_or_default()
    }
}

/// An answer of several strings, understood while it comes: what was understood once is not looked at again.
#[derive(Debug, Default)]
pub(super) struct Strings {
    at: usize,
    /// Strings that have not come yet; `None` before it is known how many they are.
    left: Option<usize>,
    found: Vec<Option<Range<usize>>>,
}

impl Strings {
    /// Before the next answer.
    pub(super) fn clear(&mut self) {
        self.at = 0;
        self.left = None;
        self.found.clear();
    }

    /// Understands what has come by now. Whether it is the whole answer, of `expected` strings.
    pub(super) fn is_whole(&mut self, input: &[u8], expected: usize) -> Result<bool, Odd> {
        if self.left.is_none() {
            let Some((number, next)) = header(input, self.at, b'*')? else {
                return Ok(false);
            };
            if number != Some(expected) {
                return Err(Odd::Garbled);
            }
            self.at = next;
            self.left = Some(expected);
        }
        while let Some(left) = self.left
            && left > 0
        {
            let Some((length, start)) = header(input, self.at, b'$')? else {
                return Ok(false);
            };
            let next = match length {
                None => {
                    self.found.push(None);
                    start
                }
                Some(length) if length > LONGEST_STRING => return Err(Odd::Garbled),
                Some(length) => {
                    let end = start + length;
                    match input.get(end..end + 2) {
                        None => return Ok(false),
                        Some(b"\r\n") => self.found.push(Some(start..end)),
                        Some(_) => return Err(Odd::Garbled),
                    }
                    end + 2
                }
            };
            self.at = next;
            self.left = Some(left - 1);
        }
        // Nobody asked for more.
        if input.len() == self.at {
            Ok(true)
        } else {
            Err(Odd::Garbled)
        }
    }

    /// The string in this place, if there is one.
    pub(super) fn get<'a>(&self, input: &'a [u8], place: usize) -> Option<&'a [u8]> {
        input.get(self.found.get(place)?.clone()?)
    }
}

/// The number of a header that is there, which is none at -1, and where what follows it begins.
fn header(input: &[u8], at: usize, sign: u8) -> Result<Option<(Option<usize>, usize)>, Odd> {
    let Some((line, next)) = line(input, at)? else {
        return Ok(None);
    };
    match line.split_first() {
        Some((first, digits)) if *first == sign => {
            if digits == b"-1" {
                return Ok(Some((None, next)));
            }
            let number = number(digits).ok_or(Odd::Garbled)?;
            Ok(Some((Some(number), next)))
        }
        Some((b'-', why)) => Err(Odd::Refused(String::from_utf8_lossy(why).into_owned())),
        _ => Err(Odd::Garbled),
    }
}

/// An answer of one line that says that all is well. Whether it is there.
pub(super) fn is_well(input: &[u8]) -> Result<bool, Odd> {
    let Some((line, next)) = line(input, 0)? else {
        return Ok(false);
    };
    match line.split_first() {
        Some((b'+', _)) if next == input.len() => Ok(true),
        Some((b'-', why)) => Err(Odd::Refused(String::from_utf8_lossy(why).into_owned())),
        _ => Err(Odd::Garbled),
    }
}

/// A line without its end, and where the next one begins.
fn line(input: &[u8], at: usize) -> Result<Option<(&[u8], usize)>, Odd> {
    let rest = input.get(at..).unwrap_or_default();
    let window = rest.get(..LONGEST_LINE).unwrap_or(rest);
    match window.iter().position(|byte| *byte == b'\n') {
        Some(end) => match window.get(..end).and_then(|line| line.strip_suffix(b"\r")) {
            Some(line) => Ok(Some((line, at + end + 1))),
            None => Err(Odd::Garbled),
        },
        None if window.len() == LONGEST_LINE => Err(Odd::Garbled),
        None => Ok(None),
    }
}

fn number(digits: &[u8]) -> Option<usize> {
    // Longer ones are over every limit.
    if digits.is_empty() || digits.len() > 12 {
        return None;
    }
    digits.iter().try_fold(0_usize, |number, byte| {
        let digit = byte.wrapping_sub(b'0');
        (digit < 10).then(|| number * 10 + usize::from(digit))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_written_as_the_server_reads_them() {
        let mut out = Vec::new();
        command(&mut out, 2);
        word(&mut out, [b"MGET"]);
        word(&mut out, [b"{a.", Digits::of(17).as_bytes(), b"}m"]);
        assert_eq!(out, b"*2\r\n$4\r\nMGET\r\n$7\r\n{a.17}m\r\n");
        for number in [0, 9, 10, 65_535, usize::MAX] {
            assert_eq!(Digits::of(number).as_bytes(), number.to_string().as_bytes());
        }
    }

    #[test]
    fn an_answer_is_understood_however_it_comes() {
        let whole = b"*3\r\n$5\r\na\r\n$b\r\n$-1\r\n$0\r\n\r\n";
        for pieces in 1..whole.len() {
            let mut strings = Strings::default();
            let mut at = 0;
            loop {
                at = (at + pieces).min(whole.len());
                let done = strings.is_whole(&whole[..at], 3).unwrap();
                assert_eq!(done, at == whole.len(), "{at} of pieces of {pieces}");
                if done {
                    break;
                }
            }
            let got = [0, 1, 2, 3].map(|place| strings.get(whole, place));
            assert_eq!(got, [Some(&b"a\r\n$b"[..]), None, Some(&b""[..]), None]);
        }
    }

    #[test]
    fn what_is_no_answer_is_told_apart() {
        let of = |input: &[u8]| Strings::default().is_whole(input, 1);
        assert_eq!(
            of(b"-LOADING wait\r\n"),
            Err(Odd::Refused("LOADING wait".to_owned()))
        );
        let long = [b'1'; LONGEST_LINE + 1];
        for garbled in [
            &b"*2\r\n"[..],
            b"*-1\r\n",
            b"*1\n",
            b"+OK\r\n",
            b"\r\n",
            b"*1\r\n:1\r\n",
            b"*1\r\n$1x\r\n",
            b"*1\r\n$\r\n",
            b"*1\r\n$1\r\nabc",
            b"*1\r\n$99999999999\r\n",
            b"*1\r\n$-2\r\n",
            b"*1\r\n$1\r\na\r\n*",
            &long,
        ] {
            assert_eq!(of(garbled), Err(Odd::Garbled), "{garbled:?}");
        }
        assert_eq!(is_well(b"+O"), Ok(false));
        assert_eq!(is_well(b"+OK\r\n"), Ok(true));
        assert_eq!(is_well(b"-no\r\n"), Err(Odd::Refused("no".to_owned())));
        assert_eq!(is_well(b"+OK\r\n+"), Err(Odd::Garbled));
    }
}
