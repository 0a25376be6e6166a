//! The examples do what they say. `two_processes` runs in two processes of this very program: cargo builds no example for
//! `cargo test --tests`.

use std::cell::RefCell;

#[cfg(feature = "redis")]
mod processes;
#[path = "../../examples/read_through.rs"]
#[expect(dead_code, reason = "its main is the example's")]
mod read_through;
#[cfg(feature = "redis")]
#[path = "../../examples/two_processes.rs"]
#[expect(dead_code, reason = "its main is the example's")]
mod two_processes;

#[tokio::test(start_paused = true)]
async fn read_through_shows_a_load_a_hit_and_a_change() {
    let shown = RefCell::new(Vec::new());
    let show = |answer: &contextkeep_cache::Answer| {
        shown
            .borrow_mut()
            .push((answer.value().cloned(), answer.origin().as_str()));
    };
    read_through::run(show).await.unwrap();
    let of = |value: &'static str| Some(bytes::Bytes::from(value));
    assert_eq!(
        shown.into_inner(),
        [(of("144"), "primary"), (of("144"), "l1"), (of("a gross"), "l1")]
    );
}
