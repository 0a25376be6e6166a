//! The stages of one request one by one, for a trace. Nobody else pays for it: what is not in the scope of a
//! [`Stages`] notes its stages as sums alone.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::Stage;

/// Stages that are kept of one request; of a batch that waits for more the others are counted.
const KEPT_MAX: usize = 64;

tokio::task_local! {
    static CURRENT: Arc<Stages>;
}

/// One stage: what a request waited for, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StageSpan {
    /// For what.
    pub stage: Stage,
    /// Since when.
    pub begun: Instant,
    /// How long.
    pub took: Duration,
}

/// What a request waited for, in the order in which the waits ended.
#[derive(Debug, Default)]
pub struct Stages(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    spans: Vec<StageSpan>,
    left_out: u32,
}

impl Stages {
    /// Runs a future whose stages are kept here. Tasks that it spawns keep theirs nowhere.
    ///
    /// # Cancellation
    /// Dropping it drops the future; a stage that was under way is kept with the time until then.
    pub async fn scope<F: Future>(self: &Arc<Self>, future: F) -> F::Output {
        CURRENT.scope(self.clone(), future).await
    }

    /// What the present task keeps its stages in.
    #[cfg(feature = "cache")]
    pub(super) fn current() -> Option<Arc<Self>> {
        CURRENT.try_with(Arc::clone).ok()
    }

    /// The first 64 stages, and how many more there were. Leaves none.
    pub fn take(&self) -> (Vec<StageSpan>, u32) {
        let kept = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        (kept.spans, kept.left_out)
    }

    fn keep(&self, span: StageSpan) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.spans.len() < KEPT_MAX {
            kept.spans.push(span);
        } else {
            kept.left_out = kept.left_out.saturating_add(1);
        }
    }
}

/// Notes a stage that ends now, if the present request keeps them.
pub(super) fn note(stage: Stage, took: Duration) {
    let keep = |stages: &Arc<Stages>| {
        let now = Instant::now();
        let begun = now.checked_sub(took).unwrap_or(now);
        stages.keep(StageSpan { stage, begun, took });
    };
    // Outside of every scope nobody wants to know.
    CURRENT.try_with(keep).ok();
}

#[cfg(test)]
mod tests {
    use super::super::{Consistency, Session, Token, spent, timed};
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[tokio::test(start_paused = true)]
    async fn each_stage_is_kept_with_its_time_also_in_a_session_within() {
        let begun = Instant::now();
        let stages = Arc::new(Stages::default());
        let session = Session::new(Consistency::Session, Token::default());
        let work = async {
            timed(Stage::Cache, tokio::time::sleep(MS * 10)).await;
            Session::strong(timed(Stage::Commit, tokio::time::sleep(MS * 20))).await;
            tokio::time::sleep(MS * 5).await;
            spent(Stage::Gate, MS * 3);
        };
        stages.scope(session.scope(work)).await;
        let (spans, left_out) = stages.take();
        let seen: Vec<_> = spans
            .iter()
            .map(|span| {
                let after = span.begun.duration_since(begun);
                (span.stage, after.as_millis(), span.took.as_millis())
            })
            .collect();
        assert_eq!(
            seen,
            [
                (Stage::Cache, 0, 10),
                (Stage::Commit, 10, 20),
                (Stage::Gate, 32, 3)
            ]
        );
        assert_eq!(left_out, 0);
        assert_eq!(session.spent(Stage::Commit), MS * 20);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stage_that_is_dropped_is_kept_with_what_it_took_until_then() {
        let stages = Arc::new(Stages::default());
        let endless = timed(Stage::Statement, std::future::pending::<()>());
        let outcome = tokio::time::timeout(MS * 30, stages.scope(endless)).await;
        assert!(outcome.is_err());
        let (spans, _) = stages.take();
        let seen: Vec<_> = spans.iter().map(|span| (span.stage, span.took)).collect();
        assert_eq!(seen, [(Stage::Statement, MS * 30)]);
    }

    #[cfg(feature = "cache")]
    #[tokio::test(start_paused = true)]
    async fn what_is_carried_into_a_task_is_kept_as_if_it_had_stayed() {
        let stages = Arc::new(Stages::default());
        let session = Session::new(Consistency::Session, Token::default());
        let work = async {
            let carried = super::super::carried(timed(Stage::Commit, tokio::time::sleep(MS * 7)));
            tokio::spawn(carried).await.unwrap();
        };
        stages.scope(session.scope(work)).await;
        let (spans, _) = stages.take();
        let seen: Vec<_> = spans.iter().map(|span| (span.stage, span.took)).collect();
        assert_eq!(seen, [(Stage::Commit, MS * 7)]);
        assert_eq!(session.spent(Stage::Commit), MS * 7);
    }

    #[tokio::test(start_paused = true)]
    async fn only_so_many_are_kept_and_the_others_counted() {
        let stages = Arc::new(Stages::default());
        let work = async {
            for _ in 0..KEPT_MAX + 7 {
                spent(Stage::Commit, MS);
            }
        };
        stages.scope(work).await;
        spent(Stage::Commit, MS);
        let (spans, left_out) = stages.take();
        assert_eq!((spans.len(), left_out), (KEPT_MAX, 7));
        assert_eq!(stages.take(), (Vec::new(), 0));
    }
}
