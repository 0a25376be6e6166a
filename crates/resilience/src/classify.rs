//! From a call's result to its [`Outcome`].

use crate::{Error, Outcome, Why};

pub mod http;
pub mod redis;
pub mod sqlstate;

/// Judges results. Any `Fn(Result<&T, &E>) -> Outcome` is one.
pub trait Classify<T, E>: Send + Sync {
    /// What this result means. Called once per attempt.
    fn classify(&self, result: Result<&T, &E>) -> Outcome;
}

impl<T, E, F> Classify<T, E> for F
where
    F: Fn(Result<&T, &E>) -> Outcome + Send + Sync,
{
    fn classify(&self, result: Result<&T, &E>) -> Outcome {
        self(result)
    }
}

/// `Ok` is a success and every `Err` a failure. For operations whose errors are all the dependency's fault.
#[derive(Debug, Clone, Copy, Default)]
pub struct AnyError;

impl<T, E> Classify<T, E> for AnyError {
    fn classify(&self, result: Result<&T, &E>) -> Outcome {
        if result.is_ok() {
            Outcome::SUCCESS
        } else {
            Outcome::FAILURE
        }
    }
}

/// The judgement on a result that may have ended in one of our own guards.
///
/// An attempt's timeout is a failure of the dependency. A deadline is the caller's: how long the call had
/// taken by then is what counts, and the breaker's rule for abandoned calls looks at that. Every other
/// refusal never reached the dependency and says nothing.
pub fn judge<T, E>(classify: &(impl Classify<T, E> + ?Sized), result: Result<&T, &Error<E>>) -> Outcome {
    match result {
        Ok(value) => classify.classify(Ok(value)),
        Err(Error::Inner(error)) => classify.classify(Err(error)),
        Err(Error::Rejected(rejected)) => match rejected.why {
            Why::AttemptTimeout => Outcome::FAILURE,
            // Retrying any other refusal would only knock on our own door again.
            _ => Outcome::NEUTRAL,
        },
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests;
