// What a column sees, by the window of the layer and the view of the pass: positions start to hole - 1 and resume to end - 1.

struct Seen {
    start: u32,
    hole: u32,
    resume: u32,
    end: u32,
}

fn seen_by(column: u32, window: u32) -> Seen {
    let end = position_of(column) + 1u;
    let start = select(0u, end - min(end, window), window != 0u);
    if params.view_window == 0u {
        return Seen(start, end, end, end);
    }
    let resume = max(start, end - min(end, params.view_window));
    return Seen(start, clamp(params.view_sink, start, resume), resume, end);
}
