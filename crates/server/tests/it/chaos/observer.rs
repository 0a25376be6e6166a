//! Which changes the shared level had not acknowledged when their writer was answered. G5 counts from that
//! acknowledgement, and clients are not told of it; the servers' own figures are: how many changes they have put off so
//! far, and how many of them still wait. Each node is asked for them all the time.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use super::client::Nodes;
use super::history::{Moment, Untold};
use super::wire::{Request, Wire};
use crate::support::ACME;

const PAUSE: Duration = Duration::from_millis(40);

/// A look at one node's figures.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    began: Moment,
    ended: Moment,
    /// Which process answered.
    port: u16,
    /// Changes put off since it started.
    put_off: u64,
    waiting: u64,
}

/// Looks at a node until it is told to stop.
pub(super) fn observe(nodes: &Nodes, node: usize, over: &AtomicBool) -> Vec<Untold> {
    let mut wire = Wire::default();
    let mut looks = Vec::new();
    while !over.load(Ordering::Acquire) {
        looks.extend(look(nodes, node, &mut wire));
        std::thread::park_timeout(PAUSE);
    }
    spans(node, &looks)
}

fn look(nodes: &Nodes, node: usize, wire: &mut Wire) -> Option<Look> {
    let address = nodes.address(node);
    let bearer = format!("Bearer {ACME}");
    let request = Request {
        method: "GET",
        path: "/metrics".to_owned(),
        headers: vec![("authorization", &bearer)],
        body: String::new(),
    };
    let began = nodes.now();
    let page = wire.call(address, &request).ok()?.text();
    let ended = nodes.now();
    let value = |series: &str| {
        let line = page.lines().find_map(|line| line.strip_prefix(series));
        line.map_or(Some(0), |text| text.trim().parse().ok())
    };
    Some(Look {
        began,
        ended,
        port: address.port(),
        put_off: value("contextkeep_cache_events_total{event=\"deferred\"} ")?,
        waiting: value("contextkeep_cache_deferred_changes ")?,
    })
}

/// Two looks that say the same and nothing waiting have nothing between them. Else what was acknowledged there counts
/// from the first look at which nothing waits any more; if the process has died by then, not at all.
fn spans(node: usize, looks: &[Look]) -> Vec<Untold> {
    let mut spans: Vec<Untold> = Vec::new();
    for (place, pair) in looks.windows(2).enumerate() {
        let (before, after) = (pair[0], pair[1]);
        let quiet = before.port == after.port
            && before.put_off == after.put_off
            && (before.waiting, after.waiting) == (0, 0);
        if quiet {
            continue;
        }
        let told = looks[place + 1..]
            .iter()
            .find(|look| look.waiting == 0 || look.port != before.port);
        let until = told
            .filter(|look| look.port == before.port)
            .map(|look| look.ended);
        spans.push(Untold {
            node,
            from: before.began,
            to: after.ended,
            until,
        });
    }
    spans
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(at: u64, port: u16, put_off: u64, waiting: u64) -> Look {
        let moment = Duration::from_secs;
        Look {
            began: moment(at),
            ended: moment(at + 1),
            port,
            put_off,
            waiting,
        }
    }

    fn span(from: u64, to: u64, until: Option<u64>) -> Untold {
        let moment = Duration::from_secs;
        Untold {
            node: 0,
            from: moment(from),
            to: moment(to),
            until: until.map(moment),
        }
    }

    #[test]
    fn nothing_put_off_is_nothing_untold() {
        assert_eq!(spans(0, &[look(0, 1, 4, 0), look(10, 1, 4, 0)]), []);
    }

    #[test]
    fn what_was_put_off_counts_from_when_nothing_waits() {
        let looks = [
            look(0, 1, 4, 0),
            look(10, 1, 5, 1),
            look(20, 1, 5, 0),
            look(30, 1, 5, 0),
        ];
        assert_eq!(spans(0, &looks), [span(0, 11, Some(21)), span(10, 21, Some(21))]);
        // It came and went between two looks.
        assert_eq!(
            spans(0, &[look(0, 1, 4, 0), look(10, 1, 5, 0)]),
            [span(0, 11, Some(11))]
        );
    }

    #[test]
    fn what_a_dead_process_put_off_is_never_told() {
        assert_eq!(
            spans(0, &[look(0, 1, 4, 0), look(10, 2, 0, 0)]),
            [span(0, 11, None)]
        );
    }
}
