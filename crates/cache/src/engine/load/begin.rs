//! Who flies a load.
//!
//! The look into the second level is flown by those who wait for it: a task for each would cost as much as the look itself.
//! What is not there is loaded in a task that belongs to no reader.

use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use super::{Engine, Job, Outcome};
use crate::error::Error;
use crate::flight::Flight;
use crate::loader::Loader;

/// Lands flights whose task ends early (F3): it panicked, or the runtime shuts down.
struct Landing {
    engine: Arc<Engine>,
    flights: SmallVec<[Arc<Flight<Outcome>>; 1]>,
}

impl Landing {
    fn land_the_rest(&self, error: &Error) {
        for flight in &self.flights {
            self.engine.flights.lock_of(flight).leave(flight);
            flight.land(Err(error.clone()));
        }
    }
}

impl Drop for Landing {
    fn drop(&mut self) {
        self.land_the_rest(&Error::Abandoned);
    }
}

impl Engine {
    pub(crate) fn spawn_load(self: &Arc<Self>, jobs: Vec<Job>, loader: Arc<dyn Loader>) {
        let engine = Arc::clone(self);
        let landing = Landing {
            engine: Arc::clone(self),
            flights: jobs.iter().map(|job| Arc::clone(&job.flight)).collect(),
        };
        drop(tokio::spawn(async move {
            let limit = engine.policy.load_timeout;
            let work = Box::pin(engine.fly(jobs, &loader));
            if tokio::time::timeout(limit, work).await.is_err() {
                landing.land_the_rest(&Error::TimedOut(limit));
            }
            drop(landing);
        }));
    }

    /// Has a flight flown: by those who wait for it as long as the second level is all that is asked.
    pub(in crate::engine) fn begin(self: &Arc<Self>, job: Job, loader: &Arc<dyn Loader>) {
        if job.ask_source || job.past_remote || self.remote.is_none() {
            return self.spawn_load(vec![job], Arc::clone(loader));
        }
        let flight = Arc::clone(&job.flight);
        flight.board(Box::pin(Arc::clone(self).look(job, Arc::clone(loader))));
    }

    /// Asks the second level, and has loaded what it does not have.
    async fn look(self: Arc<Self>, job: Job, loader: Arc<dyn Loader>) {
        let mut landing = Landing {
            engine: Arc::clone(&self),
            flights: smallvec![Arc::clone(&job.flight)],
        };
        let pass = self.pass(job).await;
        let Some(left) = self.consult_one(pass).await else {
            landing.flights.clear();
            return;
        };
        drop(tokio::spawn(async move {
            let limit = self.policy.load_timeout;
            let passed = self.now().since(left.flight.began);
            let work = Box::pin(self.fly_on(vec![left], &loader));
            if tokio::time::timeout(limit.saturating_sub(passed), work)
                .await
                .is_err()
            {
                landing.land_the_rest(&Error::TimedOut(limit));
            }
            drop(landing);
        }));
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    // Each look is a box of its own. mimalloc, for one, gives out what is larger than this on its slow path.
    #[test]
    fn a_look_into_the_second_level_takes_a_small_box() {
        fn size<F>(_: impl FnOnce(Arc<Engine>, Job, Arc<dyn Loader>) -> F) -> usize {
            size_of::<F>()
        }
        let size = size(Engine::look);
        assert!(size <= 1024, "{size}");
    }
}
