//! Expressions, and the conditions that they come to.

use super::*;
use proptest::prelude::*;

/// Conditions as `subject[!]=pattern,…`, joined by `&`; alternatives by ` | `.
fn shown(text: &str) -> String {
    let pattern = |pattern: &Pattern| match pattern {
        Pattern::Equal(text) => text.clone(),
        Pattern::Prefix(text) => format!("{text}*"),
        Pattern::Suffix(text) => format!("*{text}"),
        Pattern::Contains(text) => format!("*{text}*"),
    };
    let condition = |condition: &Condition| {
        let subject = match &condition.subject {
            Subject::Header(name) => format!("<{name}>"),
            other => format!("{other:?}"),
        };
        let patterns: Vec<_> = condition.patterns.iter().map(pattern).collect();
        format!("{subject}{}={}", if condition.is_negated { "!" } else { "" }, patterns.join(","))
    };
    let alternatives = alternatives(text).unwrap_or_else(|fault| panic!("{text}: {fault:?}"));
    let shown: Vec<_> =
        alternatives.iter().map(|all| all.iter().map(condition).collect::<Vec<_>>().join("&")).collect();
    shown.join(" | ")
}

#[test]
fn conditions_are_read_as_they_are_written() {
    for (text, expected) in [
        (r#"headers["x-tier"] == "premium""#, "<x-tier>=premium"),
        (r"headers['X-Tier'] == 'premium'", "<x-tier>=premium"),
        (r#""gpt-4o" == model"#, "Model=gpt-4o"),
        (r#"model.startsWith("gpt-4")"#, "Model=gpt-4*"),
        (r#"headers["x-user"].endsWith("@a.example") "#, "<x-user>=*@a.example"),
        (r#"headers["user-agent"].contains("mobile")"#, "<user-agent>=*mobile*"),
        (r#"headers["x-env"] in ["staging", "testing"]"#, "<x-env>=staging,testing"),
        (r#""x-debug" in headers"#, "<x-debug>="),
        (r#"request_type == "embedding""#, "Endpoint=embeddings"),
        (r#"request_type != "chat_completion""#, "Endpoint!=chat,messages,generate,cohere_chat"),
        (r#"team_name == "a" && customer_id != "b""#, "TeamName=a&CustomerId!=b"),
    ] {
        assert_eq!(shown(text), expected, "{text}");
    }
}

#[test]
fn alternatives_are_multiplied_out_and_negations_go_down_to_the_conditions() {
    for (text, expected) in [
        ("", ""),
        ("true", ""),
        (r#"model == "a" || model == "b" && provider == "p""#, "Model=a | Model=b&Provider=p"),
        (r#"(model == "a" || model == "b") && provider == "p""#, "Model=a&Provider=p | Model=b&Provider=p"),
        (r#"!(model == "a" || provider == "p")"#, "Model!=a&Provider!=p"),
        (r#"!(model == "a" && !(provider == "p"))"#, "Model!=a | Provider=p"),
        (r#"!!(model in ["a"])"#, "Model=a"),
        (r#"true && model == "a""#, "Model=a"),
        (r#"false || model == "a""#, "Model=a"),
    ] {
        assert_eq!(shown(text), expected, "{text}");
    }
    assert_eq!(alternatives("false"), Ok(Vec::new()), "it never holds");
    assert_eq!(alternatives(""), Ok(vec![Vec::new()]), "it always holds");
}

#[test]
fn what_is_not_understood_is_named_with_its_place() {
    for (text, at, problem) in [
        ("budget_used > 80", 1, "`budget_used` is not known here"),
        (r#"model == "a" && tokens_used < 75"#, 17, "`tokens_used` is not known here"),
        (r#"headers["a"].matches("[0-9]+")"#, 14, "`matches` is not understood here"),
        ("model > 3", 7, "`>` is not understood here"),
        ("model == 3", 10, "`3` is not understood here"),
        (r#"model == "a"#, 10, "this text does not end"),
        (r#"model == "a\n""#, 10, "a text with `\\` is not understood here"),
        (r#"(model == "a""#, 14, "`)` is missing here"),
        (r#"model == "a" model"#, 14, "nothing can follow here, and `model` does"),
        ("model", 6, "a comparison is missing here"),
        ("model in []", 11, "a text in quotes has to stand here, and `]` does"),
        (r#"model == "a" &&"#, 16, "a condition is missing at the end"),
        (r#"params["x"] == "y""#, 1, "`params` is not known here"),
        (r#"request_type == "batch""#, 24, "the request type \"batch\" is not known here"),
        (r#"request_type.startsWith("b")"#, 14, "request_type is compared as a whole"),
        (r#""a" in ["a", "b"]"#, 8, "behind a text, `in headers` is understood and nothing else"),
    ] {
        assert_eq!(alternatives(text), Err(CelFault { at, problem: problem.to_owned() }), "{text}");
    }
}

#[test]
fn an_expression_has_a_bound() {
    let or = |count: usize| vec![r#"(model == "a" || provider == "b")"#; count].join(" && ");
    assert_eq!(alternatives(&or(4)).map(|all| all.len()), Ok(16));
    assert!(alternatives(&or(5)).is_err());
    assert!(alternatives(&vec![r#"model != "a""#; 17].join(" && ")).is_err());
    assert!(alternatives(&format!("{}true{}", "(".repeat(40), ")".repeat(40))).is_err());
    assert!(alternatives(&format!("{}true", "!".repeat(40))).is_err());
}

/// Pieces of expressions, so that many of those that are made of them are nearly right.
const PIECES: [&str; 14] =
    ["model", "==", "\"a\"", "&&", "||", "!", "(", ")", " in ", "headers", "[", "]", ".contains", "\u{1f600}"];

proptest! {
    #[test]
    fn any_text_is_answered(pieces in proptest::collection::vec(0..PIECES.len(), 0..40)) {
        let text: String = pieces.into_iter().map(|at| PIECES[at]).collect();
        if let Err(fault) = alternatives(&text) {
            prop_assert!((1..=text.chars().count() + 1).contains(&fault.at), "{fault:?}");
        }
    }
}
