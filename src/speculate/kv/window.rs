//! `window`: the first positions and the last ones (StreamingLLM, arXiv 2309.17453; TriForce's cheapest tier).

use super::KvView;
use crate::speculate::methods::{Make, Method, OptionSpec};

/// This method.
pub static METHOD: Method = Method {
    name: "window",
    paper: "StreamingLLM, arXiv 2309.17453",
    about: "draft models see the first kv_sink and the last kv_window positions",
    needs: "a drafter that runs a model",
    options: &[
        OptionSpec { key: "kv_sink", about: "first positions", default: 16.0, min: 0.0, max: 1024.0 },
        OptionSpec { key: "kv_window", about: "last positions", default: 240.0, min: 1.0, max: 1e6 },
    ],
    test: "kv::window",
    make: Make::View(|setup| KvView { sink: setup.option("kv_sink") as u32, window: setup.option("kv_window") as u32 }),
};

#[cfg(test)]
mod tests {
    use crate::speculate::config::SpeculationConfig;
    use crate::speculate::kv::KvView;
    use crate::speculate::methods::Setup;

    #[test]
    fn sees_both_ends() {
        let config: SpeculationConfig = "kv=window,kv_sink=4,kv_window=64".parse().expect("valid");
        assert_eq!(Setup::new(&config).kv_view().expect("a view"), KvView { sink: 4, window: 64 });
    }
}
