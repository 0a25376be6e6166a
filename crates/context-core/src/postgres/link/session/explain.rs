//! The plan of a statement, without running it.

use std::fmt::Write as _;
use std::pin::pin;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::super::fault::{Fault, Kind};
use super::super::limit::Limit;
use super::super::statement::Statement;
use super::Session;

/// What the server is told; we wait a second longer.
const TIMEOUT: Duration = Duration::from_secs(1);

impl Session {
    /// The plan that a statement has for any values, as JSON. Not executed, and with `NULL` for every parameter, so
    /// that no value is in it; in a transaction that may only read and is rolled back. What a function does inside
    /// is not shown by the server.
    ///
    /// # Errors
    /// Why there is none; the connection is closed then, because what is left on it is unknown.
    pub(crate) async fn explain(self, statement: &'static Statement) -> Result<String, Fault> {
        let limit = Limit::start(TIMEOUT);
        let script = script(statement);
        let plan = self
            .run(limit, pin!(async { self.link()?.explain(&script).await }))
            .await
            .and_then(|plan| {
                plan.ok_or_else(|| Fault::new(Kind::Internal, "an explanation answered no row"))
            });
        if plan.is_err() {
            self.broken.store(true, Ordering::Release);
        }
        plan
    }
}

/// One message, so that a pooler keeps it on one server: `EXPLAIN (GENERIC_PLAN)` is only known from Postgres 16 on.
fn script(statement: &Statement) -> String {
    let timeout = TIMEOUT.as_millis();
    let mut script = format!(
        "BEGIN READ ONLY; SET LOCAL statement_timeout = {timeout}; SET LOCAL lock_timeout = {timeout}; \
         SET LOCAL plan_cache_mode = force_generic_plan; PREPARE contextkeep_explained"
    );
    let list = |script: &mut String, each: &dyn Fn(&tokio_postgres::types::Type) -> String| {
        for (index, parameter) in statement.types.iter().enumerate() {
            let before = if index == 0 { " (" } else { ", " };
            let _infallible = write!(script, "{before}{}", each(parameter));
        }
        script.push_str(if statement.types.is_empty() { "" } else { ")" });
    };
    list(&mut script, &|parameter| {
        format!("{}.\"{}\"", parameter.schema(), parameter.name())
    });
    let _infallible = write!(
        script,
        " AS {}; EXPLAIN (FORMAT JSON) EXECUTE contextkeep_explained",
        statement.sql
    );
    list(&mut script, &|_| "NULL".to_owned());
    script.push_str("; DEALLOCATE contextkeep_explained; ROLLBACK");
    script
}

#[cfg(test)]
mod tests {
    use tokio_postgres::types::Type;

    use super::*;

    #[test]
    fn nothing_is_executed_and_no_value_is_given() {
        let statement = Statement {
            name: "put",
            sql: "INSERT INTO t VALUES ($1, $2)",
            types: &[Type::INT8, Type::TEXT_ARRAY],
        };
        let script = script(&statement);
        assert!(script.starts_with("BEGIN READ ONLY; "), "{script}");
        let end = "PREPARE contextkeep_explained (pg_catalog.\"int8\", pg_catalog.\"_text\") AS INSERT INTO t VALUES \
                   ($1, $2); EXPLAIN (FORMAT JSON) EXECUTE contextkeep_explained (NULL, NULL); DEALLOCATE \
                   contextkeep_explained; ROLLBACK";
        assert!(script.ends_with(end), "{script}");
        assert!(!script.to_uppercase().contains("ANALYZE"), "{script}");
    }

    #[test]
    fn a_statement_without_parameters_has_no_list_of_them() {
        let statement = Statement {
            name: "one",
            sql: "SELECT 1",
            types: &[],
        };
        let script = script(&statement);
        let end = "PREPARE contextkeep_explained AS SELECT 1; EXPLAIN (FORMAT JSON) EXECUTE contextkeep_explained; \
                   DEALLOCATE contextkeep_explained; ROLLBACK";
        assert!(script.ends_with(end), "{script}");
    }
}
