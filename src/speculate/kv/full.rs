//! `full`: all of the cache.

use super::KvView;
use crate::speculate::methods::{Make, Method};

/// This method.
pub static METHOD: Method = Method {
    name: "full",
    paper: "Vaswani et al., arXiv 1706.03762",
    about: "draft models see all of their cache",
    needs: "",
    options: &[],
    test: "kv::full",
    make: Make::View(|_| KvView { sink: 0, window: 0 }),
};

#[cfg(test)]
mod tests {
    use crate::speculate::config::SpeculationConfig;
    use crate::speculate::methods::Setup;

    #[test]
    fn sees_everything() {
        let config: SpeculationConfig = "kv=full,kv_window=8".parse().expect("valid");
        assert_eq!(Setup::new(&config).kv_view().expect("a view").window, 0);
    }
}
