//! TOML. The `toml` crate keeps the span of every key and value and rejects duplicates itself.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::node::{Data, Entry, Lines, MAX_DEPTH, Node, SyntaxError};

pub(crate) fn parse(text: &str) -> Result<Node, SyntaxError> {
    let reader = Reader {
        lines: Lines::new(text),
    };
    let table = DeTable::parse(text).map_err(|error| {
        let (line, column) = reader.lines.position(error.span().map_or(0, |span| span.start));
        SyntaxError::new(line, column, error.message().replace('\n', "; "))
    })?;
    Ok(Node {
        data: reader.table(table.get_ref(), 0)?,
        line: 1,
    })
}

struct Reader<'a> {
    lines: Lines<'a>,
}

impl Reader<'_> {
    fn table(&self, table: &DeTable<'_>, depth: usize) -> Result<Data, SyntaxError> {
        let entry = |(key, value): (&Spanned<_>, &Spanned<_>)| {
            let line = self.lines.line(key.span().start);
            let key: &std::borrow::Cow<'_, str> = key.get_ref();
            Ok(Entry {
                key: key.clone().into_owned(),
                line,
                value: self.node(value, depth + 1)?,
            })
        };
        let mut entries = table.iter().map(entry).collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(|entry| entry.line);
        Ok(Data::Map(entries))
    }

    fn node(&self, value: &Spanned<DeValue<'_>>, depth: usize) -> Result<Node, SyntaxError> {
        let start = value.span().start;
        let line = self.lines.line(start);
        let error = |message: String| {
            let (line, column) = self.lines.position(start);
            SyntaxError::new(line, column, message)
        };
        if depth > MAX_DEPTH {
            return Err(error(format!("values nest deeper than {MAX_DEPTH} levels")));
        }
        let data = match value.get_ref() {
            DeValue::String(text) => Data::Text(text.clone().into_owned()),
            DeValue::Integer(integer) => {
                let parsed = i128::from_str_radix(integer.as_str(), integer.radix());
                Data::Int(parsed.map_err(|_| error("this integer is too large".to_owned()))?)
            }
            DeValue::Float(float) => {
                let parsed = float.as_str().parse();
                Data::Float(parsed.map_err(|_| error("this is not a number".to_owned()))?)
            }
            DeValue::Boolean(bool) => Data::Bool(*bool),
            DeValue::Datetime(datetime) => Data::Text(datetime.to_string()),
            DeValue::Array(items) => Data::List(
                items
                    .iter()
                    .map(|item| self.node(item, depth + 1))
                    .collect::<Result<_, _>>()?,
            ),
            DeValue::Table(table) => self.table(table, depth)?,
        };
        Ok(Node { data, line })
    }
}
