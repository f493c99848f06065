use serde_json::{Value, json};

use super::*;

const MODELS: [ListedModel<'static>; 2] =
    [ListedModel { id: "openai/gpt-4o", owner: "openai" }, ListedModel { id: "x/\"y", owner: "x" }];

fn list(dialect: Dialect, models: &[ListedModel<'static>]) -> Value {
    let mut out = Vec::new();
    write(dialect, models.iter().copied(), &mut out);
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn openai_lists_objects() {
    assert_eq!(
        list(Dialect::OpenAi, &MODELS),
        json!({"object": "list", "data": [
            {"id": "openai/gpt-4o", "object": "model", "created": 0, "owned_by": "openai"},
            {"id": "x/\"y", "object": "model", "created": 0, "owned_by": "x"},
        ]})
    );
    assert_eq!(list(Dialect::OpenAi, &[]), json!({"object": "list", "data": []}));
}

#[test]
fn anthropic_lists_one_page() {
    let model = |id: &str| json!({"type": "model", "id": id, "display_name": id, "created_at": "1970-01-01T00:00:00Z"});
    assert_eq!(
        list(Dialect::Anthropic, &MODELS),
        json!({"data": [model("openai/gpt-4o"), model("x/\"y")], "has_more": false,
            "first_id": "openai/gpt-4o", "last_id": "x/\"y"})
    );
    assert_eq!(
        list(Dialect::Anthropic, &[]),
        json!({"data": [], "has_more": false, "first_id": null, "last_id": null})
    );
}
