use super::super::shapes::ToldFigures;
use super::*;
use proptest::collection::vec;
use proptest::prelude::*;
use shared::report::LATENCY_BOUNDS_US;

fn read_back(texts: &[(String, String)]) -> NodeValues {
    decode(texts.iter().map(|(key, text)| (key.as_str(), text.as_str())))
}

/// 10 providers with 4 keys and 10 models each, 40 limits, 16 cores, three keys that rest.
fn busy_node() -> NodeValues {
    let mut values = NodeValues {
        about: About {
            version: "0.4.0 (61675e8)".into(),
            protocol: 1,
            region: "eu-central-1".into(),
            state: "ready".into(),
            client_address: "10.20.30.40:8080".into(),
            started_ms: 1_790_000_000_123,
            gossip_keys: vec!["0011aabb".into()],
        },
        load: Load {
            cpu_permille: 430,
            memory_permille: 271,
            network_bytes_per_second: 48_203_111,
            descriptors_permille: 12,
            streams: 2_310,
            requests_in_flight: 2_544,
            tick_delay_us: vec![10_300; 16],
            is_overloaded: false,
        },
        configuration: ConfigurationMark { epoch: 17, author: "node-a".into(), hash: "00112233aabbccdd".into() },
        ..NodeValues::default()
    };
    for provider in 0..10_u64 {
        let name = format!("provider-{provider}");
        values.providers.push(ProviderTraffic {
            provider: name.clone(),
            attempts: 4_211 + provider,
            failures: provider,
            first_byte_us: 312_000,
        });
        for key in 0..4 {
            values.traffic.push(TrafficRow {
                provider: name.clone(),
                key: format!("team-key-{key}"),
                requests: 1_031 + key,
                errors: [12, 0, 3, 0, 0, 0],
                ..TrafficRow::default()
            });
        }
        for model in 0..10 {
            values.traffic.push(TrafficRow {
                provider: name.clone(),
                model: format!("some-model-4o-{model}"),
                requests: 411 + model,
                errors: [2, 0, 0, 0, 1, 0],
                latency: vec![0, 0, 0, 0, 0, 0, 0, 0, 3, 22, 180, 190, 40, 7],
                ..TrafficRow::default()
            });
        }
    }
    for limit in 0..40_u64 {
        let unit = if limit % 2 == 0 { "requests" } else { "tokens" };
        values.limits.push(LimitUse {
            id: format!("team-{limit:02}/{unit}"),
            unit: unit.into(),
            used: 12_000 + limit,
            amount: 1_000_000,
            entitlement: Some(333_000 + limit),
            refused: 0,
            back_ms: if limit < 10 { vec![120, 29_000, 60_400] } else { Vec::new() },
        });
    }
    for key in 0..10 {
        values.told.push(ToldRow {
            provider: "provider-1".into(),
            key: format!("team-key-{key}"),
            model: "some-model-4o".into(),
            number: 1_790_000_000_123 + key,
            age_ms: 480,
            refused_ms: 0,
            requests: ToldFigures { limit: Some(10_000), remaining: Some(9_731), reset_ms: Some(1_614) },
            tokens: ToldFigures { limit: Some(2_000_000), remaining: Some(0), reset_ms: None },
        });
    }
    for key in 0..3 {
        values.rests.push(Rest {
            provider: "provider-1".into(),
            key: format!("team-key-{key}"),
            model: None,
            reason: "limited".into(),
            remaining_ms: 30_000,
            number: 5,
        });
    }
    values
}

/// 12.3 kB in 10 texts, of which 9.2 kB change every ten seconds and 2.7 kB every second: with 100
/// such nodes each one hears 360 kB a second.
#[test]
fn a_busy_node_costs_a_few_kilobytes_a_second() {
    let texts = encode(&busy_node());
    let bytes = |with: &str| -> usize {
        texts.iter().filter(|(key, _)| key.starts_with(with)).map(|(_, text)| text.len()).sum()
    };
    let every_second = bytes("load") + bytes("providers") + bytes("limits") + bytes("told");
    println!(
        "all {} B in {} texts; every second {every_second} B; every ten seconds {} B",
        bytes(""),
        texts.len(),
        bytes("traffic")
    );
    assert!(bytes("") < 16 * 1024, "{}", bytes(""));
    assert!(every_second < 4 * 1024, "{every_second}");
    assert!(bytes("traffic") < 12 * 1024, "{}", bytes("traffic"));
    let mut expected = busy_node();
    expected.limits.sort_by(|a, b| (&a.unit, &a.id).cmp(&(&b.unit, &b.id)));
    expected.traffic.sort_by(|a, b| (&a.provider, &a.key, &a.model).cmp(&(&b.provider, &b.key, &b.model)));
    assert_eq!(read_back(&texts), expected);
}

#[test]
fn of_too_many_rows_the_busiest_are_written() {
    let row = |at: u64| TrafficRow {
        provider: "p".repeat(64),
        model: format!("{at}-{}", "m".repeat(120)),
        requests: at,
        ..TrafficRow::default()
    };
    let values = NodeValues { traffic: (0..5_000).map(row).collect(), ..NodeValues::default() };
    let texts = encode(&values);
    assert!(texts.len() <= KEYS_MAX && texts.iter().all(|(_, text)| text.len() <= TEXT_BYTES_MAX));
    let load = Load { tick_delay_us: vec![u64::MAX; 1_024], ..Load::default() };
    let wide = encode(&NodeValues { load, ..NodeValues::default() });
    assert!(wide.iter().any(|(key, text)| key == "load" && text.len() <= TEXT_BYTES_MAX));
    let read = read_back(&texts).traffic;
    assert!((150..5_000).contains(&read.len()), "{}", read.len());
    let kept: Vec<u64> = read.iter().map(|row| row.requests).collect();
    assert_eq!(kept.iter().min(), Some(&(5_000 - read.len() as u64)));
}

#[test]
fn the_order_of_rows_changes_no_text() {
    let values = busy_node();
    let mut turned = values.clone();
    turned.traffic.reverse();
    turned.limits.reverse();
    turned.rests.reverse();
    assert_eq!(encode(&values), encode(&turned));
}

#[test]
fn what_a_later_version_adds_is_left_alone() {
    let texts = [
        ("about", r#"{"version":"9","region":"eu","moon":{"phase":[1]}}"#),
        ("load", "[1,2,3,4,5,6,1,[7],\"more\",{}]"),
        ("limits/0", r#"[["tokens","a",5,10],[0,"b",6,10,8,1,[900,1000],"later"]]"#),
        ("limits/many", "?"),
        ("limits/00", "?"),
        ("weather", "?"),
    ];
    let values = decode(texts.into_iter());
    assert_eq!(values.unreadable, 0);
    assert_eq!((values.about.version.as_str(), values.about.region.as_str()), ("9", "eu"));
    assert_eq!((values.load.tick_delay_us.as_slice(), values.load.is_overloaded), ([7].as_slice(), true));
    let limits: Vec<_> = values.limits.iter().map(|limit| (limit.id.as_str(), limit.unit.as_str())).collect();
    assert_eq!(limits, [("a", "tokens"), ("b", "tokens")]);
}

#[test]
fn what_an_earlier_version_leaves_out_has_its_default() {
    let values = decode([("load", "[1]"), ("rests/0", r#"[["p","k"]]"#)].into_iter());
    assert_eq!((values.load.cpu_permille, values.load.streams, values.unreadable), (1, 0, 0));
    assert_eq!(values.rests[0], Rest { provider: "p".into(), key: "k".into(), ..Rest::default() });
}

#[test]
fn a_bad_value_leaves_its_default_and_is_counted() {
    let long = format!("[[{:?},1,0,0]]", "n".repeat(301));
    let large = format!("[{}]", vec!["[\"p\",1,0,0]"; 1_000].join(","));
    let deep = "[".repeat(4_000);
    let many = format!("[0,0,0,0,0,0,0,{:?}]", [1; CORES_MAX + 1]);
    for (key, text) in [
        ("about", "{\"protocol\":-1}"),
        ("about", r#"{"version":"a\u0000b"}"#),
        ("about", "7"),
        ("configuration", "{"),
        ("load", "[1001]"),
        ("load", "{\"cpu_permille\":1}"),
        ("load", &many),
        ("providers/0", &long),
        ("providers/0", &large),
        ("providers/0", &deep),
        ("providers/0", r#"[["a\nb",1,0,0]]"#),
        ("providers/0", "[[0,1,0,0]]"),
        ("providers/0", "[[\"p\",1.5,0,0]]"),
        ("providers/0", "[7]"),
        ("traffic/0", r#"[["p","","m",1,[0,0,0,0,0,0,1],[]]]"#),
    ] {
        let values = decode([(key, text)].into_iter());
        assert_eq!(values, NodeValues { unreadable: 1, ..NodeValues::default() }, "{key}: {text:.60}");
    }
}

#[test]
fn one_bad_row_does_not_spoil_the_others() {
    let values = decode([("providers/0", r#"[["a",1,0,0],["b",-1,0,0],["c",3,0,0]]"#)].into_iter());
    let names: Vec<_> = values.providers.iter().map(|row| row.provider.as_str()).collect();
    assert_eq!((names, values.unreadable), (vec!["a", "c"], 1));
}

fn name() -> impl Strategy<Value = String> {
    prop_oneof![Just("openai".to_owned()), Just(String::new()), "[a-c\"\\\\é/]{0,40}"]
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..20_u64, any::<u64>()]
}

prop_compose! {
    fn rest()(provider in name(), key in name(), model in proptest::option::of("[a-z]{1,9}"), reason in name(),
        remaining_ms in number(), number in number()) -> Rest
    {
        Rest { provider, key, model, reason, remaining_ms, number }
    }
}

prop_compose! {
    fn row()(provider in name(), key in name(), model in name(), requests in number(),
        errors in proptest::array::uniform6(number()), latency in vec(number(), 0..=LATENCY_BOUNDS_US.len() + 1))
        -> TrafficRow
    {
        TrafficRow { provider, key, model, requests, errors, latency }
    }
}

prop_compose! {
    fn figures()(limit in proptest::option::of(0..u64::MAX), remaining in proptest::option::of(0..20_u64),
        reset_ms in proptest::option::of(0..u64::MAX)) -> ToldFigures
    {
        ToldFigures { limit, remaining, reset_ms }
    }
}

prop_compose! {
    fn told()(provider in name(), key in name(), model in name(), number in number(), age_ms in number(),
        refused_ms in number(), requests in figures(), tokens in figures()) -> ToldRow
    {
        ToldRow { provider, key, model, number, age_ms, refused_ms, requests, tokens }
    }
}

prop_compose! {
    fn limit_use()(id in name(), unit in name(), used in number(), amount in number(), refused in number(),
        entitlement in proptest::option::of(0..u64::MAX), back_ms in vec(number(), 0..=3)) -> LimitUse
    {
        LimitUse { id, unit, used, amount, entitlement, refused, back_ms }
    }
}

prop_compose! {
    fn values()(region in name(), started_ms in number(), cpu_permille in 0..=1_000_u16,
        tick_delay_us in vec(number(), 0..20), is_overloaded in any::<bool>(), epoch in number(),
        told in vec(told(), 0..60), rests in vec(rest(), 0..30), traffic in vec(row(), 0..150),
        limits in vec(limit_use(), 0..60)) -> NodeValues
    {
        NodeValues {
            about: About { region, started_ms, ..About::default() },
            load: Load { cpu_permille, tick_delay_us, is_overloaded, ..Load::default() },
            configuration: ConfigurationMark { epoch, ..ConfigurationMark::default() },
            rests,
            traffic,
            limits,
            told,
            ..NodeValues::default()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn what_is_read_back_is_written_the_same(values in values()) {
        let texts = encode(&values);
        prop_assert!(texts.len() <= KEYS_MAX);
        prop_assert!(texts.iter().all(|(_, text)| text.len() <= TEXT_BYTES_MAX));
        let read = read_back(&texts);
        prop_assert_eq!(read.unreadable, 0);
        prop_assert_eq!(&read.about, &values.about);
        prop_assert_eq!(&read.load, &values.load);
        for row in &read.traffic {
            let is_same = |other: &&TrafficRow| {
                let mut other = (*other).clone();
                while other.latency.last() == Some(&0) { other.latency.pop(); }
                other == *row
            };
            prop_assert!(values.traffic.iter().any(|other| is_same(&other)));
        }
        for row in &read.told {
            prop_assert!(values.told.contains(row));
        }
        prop_assert_eq!(encode(&read), texts);
    }

    #[test]
    fn a_text_that_was_cut_is_no_fault_of_the_reader(values in values(), cut in 0..4_096_usize) {
        let texts = encode(&values);
        for (key, text) in &texts {
            let end = text.floor_char_boundary(cut.min(text.len().saturating_sub(1)));
            let read = decode([(key.as_str(), &text[..end])].into_iter());
            prop_assert_eq!(read, NodeValues { unreadable: 1, ..NodeValues::default() });
        }
    }

    #[test]
    fn any_text_can_be_read(key in "(about|load|configuration|(rests|providers|traffic|limits|told)/[0-9]{1,2})",
        text in prop_oneof![any::<String>(), "[\\[\\]{}\",:0-9a-z.-]{0,80}"])
    {
        let read = decode([(key.as_str(), text.as_str())].into_iter());
        prop_assert!(encode(&read).len() <= KEYS_MAX);
    }
}
