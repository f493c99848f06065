use super::*;

fn figures(keeper: Keeper, nodes: usize, count: Count) -> (Figures, u64) {
    let trace = recorded::synthetic(3, 240, 24);
    let amount = amount_for(&trace, count);
    (measured(&trace, keeper, nodes, count, amount), amount)
}

fn rule(enforcement: &str, charge: Option<&str>) -> Keeper {
    let found = RULES.iter().find(|rule| rule.enforcement == enforcement && rule.charge == charge);
    Keeper::Rule(found.expect("it is in the list"))
}

#[test]
fn a_trace_is_read_as_it_was_recorded() {
    let text =
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:46.6805900,374,44\n2023-11-16 18:15:50.5,396,109\n";
    let read =
        |speed| recorded::read(text, speed).map(|all| all.iter().map(|one| one.at_ns / 1_000_000).collect::<Vec<_>>());
    assert_eq!(read(1.0), Ok(vec![0, 3_819]));
    assert_eq!(read(10.0), Ok(vec![0, 381]));
    for wrong in ["h\n2023-11-16 18:15,1,1", "h\n2023-11-16 18:15:46,1", "h\n2023-11-16 18:15:46,1,x"] {
        assert!(recorded::read(wrong, 1.0).is_err(), "{wrong}");
    }
    assert!(recorded::read("h\n2023-11-16 18:15:46,1,1\n2023-11-16 18:15:45,1,1", 1.0).is_err(), "out of order");
}

#[test]
fn the_same_trace_gives_the_same_figures() {
    let once = || figures(rule("strict", Some("produced")), 3, Count::Produced).0;
    assert_eq!(once(), once());
}

#[test]
fn what_promises_to_hold_holds_in_the_count_of_its_provider() {
    for rule in RULES.iter().filter(|rule| rule.is_firm()) {
        let (figures, amount) = figures(Keeper::Rule(rule), 3, rule.count);
        assert_eq!(figures.fault, None);
        assert!(figures.fullest <= amount, "{}: {figures:?} of {amount}", rule.named());
        assert!(figures.refused > 0 && figures.used > 0.15, "{}: {figures:?}", rule.named());
    }
}

#[test]
fn what_is_charged_at_the_end_is_exceeded_and_more_so_by_every_node() {
    let over = |is_shared| {
        let (figures, amount) = figures(Keeper::AtTheEnd { is_shared }, 3, Count::Produced);
        figures.fullest as f64 / amount as f64
    };
    assert!(over(true) > 1.02, "{}", over(true));
    assert!(over(false) > over(true) + 0.1, "{} and {}", over(false), over(true));
}

#[test]
fn answers_need_more_than_was_estimated_no_more_often_than_allowed() {
    let (figures, _) = figures(rule("statistical", Some("produced")), 1, Count::Produced);
    assert!(figures.estimated > 500, "{figures:?}");
    assert!(figures.exceeded as f64 <= 0.015 * figures.estimated as f64, "{figures:?}");
}

#[test]
fn news_keeps_a_limit_within_its_bound() {
    let (figures, amount) = figures(rule("gossip", Some("produced")), 3, Count::Produced);
    let staleness = controlplane::entitlements::staleness(std::time::Duration::from_millis(200));
    let bound =
        controlplane::entitlements::overshoot_bound(shared::limit::Unit::Tokens, amount, WINDOW_NS, staleness, 3);
    assert!(figures.fullest <= amount + bound, "{figures:?} of {amount} and {bound}");
    assert!(figures.used > 0.4, "{figures:?}");
}

/// The trace itself, where it lies beside the project.
#[test]
fn the_recorded_hour_is_kept_within_its_limit() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/traces/AzureLLMInferenceTrace_conv.csv");
    let Ok(text) = std::fs::read_to_string(&path) else { return };
    let mut trace = recorded::read(&text, 1.0).unwrap();
    trace.retain(|request| request.at_ns < 300 * SECOND_NS);
    let amount = amount_for(&trace, Count::Produced);
    let figures = measured(&trace, rule("strict", Some("produced")), 3, Count::Produced, amount);
    assert!(figures.fullest <= amount && figures.refused > 0, "{figures:?} of {amount}");
}
