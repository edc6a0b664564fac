//! A window over a conversation: which messages go when it no longer fits the context.

use serde_json::Value;

/// Where turns begin: the first at the first message that is no system message, the others with a user's message.
fn turns(messages: &[Value]) -> Vec<usize> {
    let first = messages.iter().position(|message| !is_system(message)).unwrap_or(messages.len());
    let is_user = |at: &usize| messages[*at]["role"] == "user";
    (first..messages.len()).take(1).chain((first + 1..messages.len()).filter(is_user)).collect()
}

fn is_system(message: &Value) -> bool {
    matches!(message["role"].as_str(), Some("system" | "developer"))
}

/// How many turns may go: all but the last.
pub fn old_turns(messages: &Value) -> usize {
    messages.as_array().map_or(0, |messages| turns(messages).len().saturating_sub(1))
}

/// The messages without their `count` oldest turns, at most [`old_turns`], and how many messages went. A turn goes with the
/// answers and tool results in it; system messages stay wherever they are.
pub fn without_oldest_turns(messages: &Value, count: usize) -> (Value, usize) {
    let Some(all) = messages.as_array() else { return (messages.clone(), 0) };
    let end = turns(all).get(count).copied().unwrap_or(0);
    let kept = all.iter().enumerate().filter(|&(at, message)| at >= end || is_system(message));
    let kept: Vec<Value> = kept.map(|(_, message)| message.clone()).collect();
    let gone = all.len() - kept.len();
    (Value::Array(kept), gone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn whole_turns_go_the_oldest_first_and_system_messages_stay() {
        let message = |role: &str, content: &str| json!({ "role": role, "content": content });
        let all = json!([
            message("system", "s"),
            message("user", "1"),
            message("assistant", "call"),
            message("tool", "result"),
            message("developer", "d"),
            message("assistant", "2"),
            message("user", "3"),
            message("assistant", "4"),
            message("user", "5"),
        ]);
        assert_eq!(old_turns(&all), 2);
        assert_eq!(without_oldest_turns(&all, 0), (all.clone(), 0));
        let (shorter, gone) = without_oldest_turns(&all, 1);
        assert_eq!((gone, shorter.as_array().map(Vec::len)), (4, Some(5)));
        assert_eq!([&shorter[0]["content"], &shorter[1]["content"], &shorter[2]["content"]], ["s", "d", "3"]);
        let (last, gone) = without_oldest_turns(&all, 2);
        assert_eq!((gone, &last[2]["content"]), (6, &json!("5")));
        assert_eq!(without_oldest_turns(&shorter, 1), (last.clone(), 2), "one after the other");
        assert_eq!(old_turns(&last), 0, "the last turn stays");
        assert_eq!(
            [json!("no messages"), json!([]), json!([message("system", "s")])].map(|none| old_turns(&none)),
            [0; 3]
        );
    }
}
