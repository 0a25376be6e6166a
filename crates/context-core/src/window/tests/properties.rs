//! Properties of windows over generated conversations, in short form: who speaks, calls, answers, how many tokens.
//!
//! Each can fail: beside the property stands the change of `cut.rs` that was planted to see it fail.

use std::collections::HashSet;

use proptest::prelude::*;

use super::*;

fn any_spec() -> impl Strategy<Value = Spec> {
    const IDS: [&str; 4] = ["a", "b", "c", "d"];
    let id = || prop::sample::select(&IDS[..]);
    let kind = prop_oneof![
        6 => Just(user()),
        4 => Just(assistant()),
        1 => Just(system()),
        1 => Just(Spec { pinned: true, ..user() }),
        3 => prop::collection::vec(id(), 1..3).prop_map(|ids| calls(&ids)),
        4 => id().prop_map(result),
        1 => Just(reasoning()),
    ];
    let tokens = prop_oneof![12 => 1..40u32, 1 => 100..400u32];
    (kind, tokens).prop_map(|(spec, tokens)| Spec { tokens, ..spec })
}

/// Turns as an agent makes them: calls are answered at once, so that only the size of things moves a cut.
fn any_turn() -> impl Strategy<Value = Vec<Spec>> {
    let step = prop_oneof![
        2 => Just(vec![assistant()]),
        2 => Just(vec![calls(&["a"]), result("a")]),
        1 => Just(vec![reasoning(), calls(&["a", "b"]), result("b"), result("a")]),
        1 => Just(vec![Spec { pinned: true, ..assistant() }]),
    ];
    let sized = (
        prop::collection::vec(step, 0..5),
        prop::collection::vec(1..30u32, 24),
        0..12u8,
    );
    sized.prop_map(|(steps, tokens, first)| {
        let first = if first == 0 { system() } else { user() };
        let specs = std::iter::once(first).chain(steps.into_iter().flatten());
        specs
            .zip(tokens)
            .map(|(spec, tokens)| Spec { tokens, ..spec })
            .collect()
    })
}

fn any_cut() -> impl Strategy<Value = Cut> {
    prop_oneof![Just(Cut::Sticky), Just(Cut::Tight)]
}

fn shown(window: &Window) -> Vec<Seq> {
    window.items.iter().map(|item| item.seq).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    // W1, W3, W4, W5. Planted: `always` without the kept items, `excess` five short (W4); `waiting` never
    // filled (W3); instructions before the cut not kept (W1).
    #[test]
    fn windows_keep_their_rules(
        specs in prop::collection::vec(any_spec(), 0..40), budget in 0..600u64, cut in any_cut(),
    ) {
        let all = items(&specs);
        let total: u64 = all.iter().map(|item| u64::from(item.tokens)).sum();
        match assemble(tail(&specs, budget), budget, cut) {
            Err(Error::BudgetTooSmall { minimum, .. }) => {
                prop_assert!(minimum > budget);
                prop_assert!(total > budget, "everything would have fitted");
            }
            Err(other) => prop_assert!(false, "{other}"),
            Ok(window) => {
                prop_assert!(window.tokens <= budget, "W4");
                prop_assert!(window.items.windows(2).all(|pair| pair[0].seq < pair[1].seq), "W5");
                let inside: HashSet<Seq> = window.items.iter().map(|item| item.seq).collect();
                for item in all.iter().filter(|item| item.traits.always_kept()) {
                    prop_assert!(inside.contains(&item.seq), "W1: {}", item.seq);
                }
                if window.omitted.is_some() {
                    check_pairs(&all, &inside)?;
                }
                let omitted = window.omitted.map_or((0, 0), |omitted| (omitted.items, omitted.tokens));
                prop_assert_eq!(omitted.0, (all.len() - inside.len()) as u64);
                prop_assert_eq!(omitted.1, total - window.tokens);
                prop_assert!(window.cache_breakpoints.len() <= BREAKPOINTS_MAX);
                prop_assert!(window.cache_breakpoints.iter().all(|seq| inside.contains(seq)));
                prop_assert!(window.cache_breakpoints.is_sorted_by(|a, b| a < b));
            }
        }
    }

    // W7. Planted: `sticky` without the loop over smaller steps.
    #[test]
    fn a_larger_budget_never_shows_less(
        specs in prop::collection::vec(any_spec(), 0..60), budget in 0..500u64, more in 0..200u64, cut in any_cut(),
    ) {
        if let Ok(small) = assemble(tail(&specs, budget), budget, cut) {
            let large = assemble(tail(&specs, budget + more), budget + more, cut).unwrap();
            let large = shown(&large);
            prop_assert!(shown(&small).iter().all(|seq| large.contains(seq)));
        }
    }

    // W8. Planted: results without a call let pass when everything was read.
    #[test]
    fn reading_more_than_needed_changes_nothing(
        specs in prop::collection::vec(any_spec(), 0..40), budget in 0..400u64, more in 0..400u64, cut in any_cut(),
    ) {
        let exact = assemble(tail(&specs, budget), budget, cut).ok();
        let wide = assemble(tail(&specs, budget + more), budget, cut).ok();
        prop_assert_eq!(exact, wide);
    }

    // The smallest budget that works is named, and works. Planted: a minimum less one.
    #[test]
    fn the_minimum_works_and_nothing_less(specs in prop::collection::vec(any_spec(), 1..30), cut in any_cut()) {
        let Err(Error::BudgetTooSmall { minimum, .. }) = assemble(tail(&specs, u64::MAX), 0, cut) else {
            return Err(TestCaseError::fail("nothing fits into nothing"));
        };
        // Items that break pairs leave no place but the beginning.
        let works = assemble(tail(&specs, minimum), minimum, cut);
        prop_assert!(works.is_ok(), "{works:?}");
        prop_assert!(assemble(tail(&specs, minimum - 1), minimum - 1, cut).is_err());
    }
}

proptest! {
    // Each case reads a window after each item.
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    // W6. Planted: the tight cut for the sticky one; `always` without the kept items.
    #[test]
    fn a_sticky_beginning_stays_for_a_step(turns in prop::collection::vec(any_turn(), 1..60), budget in 600..2500u64) {
        let mut specs: Vec<Spec> = Vec::new();
        let mut last: Option<Window> = None;
        let mut moves: Vec<u64> = Vec::new();
        for turn in turns {
            for spec in turn {
                specs.push(spec);
                // Between a call and its results a client does not ask.
                let Ok(window) = assemble(tail(&specs, budget), budget, Cut::Sticky) else { continue };
                if let Some(last) = &last {
                    let stays = window.items.starts_with(&last.items);
                    let same_name = window.prefix_hash == last.prefix_hash;
                    // The first item that is not kept gives a beginning its name.
                    prop_assert!(same_name == stays || (stays && last.cut_seq.is_none()), "{same_name} {stays}");
                    if !stays {
                        moves.push(specs.iter().map(|spec| u64::from(spec.tokens)).sum());
                    }
                }
                prop_assert_eq!(&assemble(tail(&specs, budget), budget, Cut::Sticky).unwrap(), &window);
                last = Some(window);
            }
        }
        // What is kept leaves at least half of the budget here, so a step is an eighth of it at least. Where the step doubles,
        // and around a step longer than a cell, two moves can lie close together; over three they do not.
        let kept: u64 = items(&specs)
            .iter()
            .filter(|item| item.traits.always_kept())
            .map(|item| u64::from(item.tokens))
            .sum();
        prop_assume!(kept * 2 <= budget);
        prop_assert!(moves.windows(4).all(|four| four[3] - four[0] >= budget / 8), "{moves:?}");
    }
}

/// W3, by a definition of its own: within a cut window each result follows its call, and each call that is in has
/// all of its results that came later.
fn check_pairs(all: &[Item], inside: &HashSet<Seq>) -> Result<(), TestCaseError> {
    for (index, item) in all.iter().enumerate() {
        for id in &item.traits.links.results {
            // The latest call of this id before the result.
            let call = all[..index]
                .iter()
                .rev()
                .find(|other| other.traits.links.calls.contains(id));
            match call {
                Some(call) if inside.contains(&item.seq) => {
                    prop_assert!(
                        inside.contains(&call.seq),
                        "result {} without call {}",
                        item.seq,
                        call.seq
                    );
                }
                Some(call) if inside.contains(&call.seq) => {
                    prop_assert!(
                        inside.contains(&item.seq),
                        "call {} without result {}",
                        call.seq,
                        item.seq
                    );
                }
                _ => {}
            }
        }
    }
    Ok(())
}
