//! Every permutation of every shader parses, validates and keeps to what every browser offers.

use foredraft::gpu::kernels::{Geometry, Kernel, KernelKey};
use naga::valid::{Capabilities, ValidationFlags, Validator};

fn all_keys() -> Vec<KernelKey> {
    let mut keys = KernelKey::all(Geometry::SOFTWARE);
    keys.extend(KernelKey::all(Geometry::HARDWARE));
    keys.sort();
    keys.dedup();
    keys
}

#[test]
fn every_permutation_validates_without_features() {
    let keys = all_keys();
    assert!(keys.len() > 90, "found only {} permutations", keys.len());
    for key in keys {
        let text = key.wgsl().expect("expands");
        let module = naga::front::wgsl::parse_str(&text)
            .unwrap_or_else(|error| panic!("{}: {}", key.label(), error.emit_to_string(&text)));
        Validator::new(ValidationFlags::all(), Capabilities::SHADER_FLOAT16_IN_FLOAT32)
            .validate(&module)
            .unwrap_or_else(|error| panic!("{}: {}", key.label(), error.emit_to_string(&text)));
        assert_eq!(module.entry_points.len(), 1, "{}", key.label());
        let entry = &module.entry_points[0];
        assert_eq!(entry.name, "main", "{}", key.label());
        let threads: u32 = entry.workgroup_size.iter().product();
        assert!(threads <= 256, "{}: {threads} threads a workgroup", key.label());

        let layouter = {
            let mut layouter = naga::proc::Layouter::default();
            layouter.update(module.to_ctx()).expect("types have sizes");
            layouter
        };
        let mut workgroup_bytes = 0;
        let mut storage = 0;
        for (_, variable) in module.global_variables.iter() {
            match variable.space {
                naga::AddressSpace::WorkGroup => workgroup_bytes += layouter[variable.ty].size,
                naga::AddressSpace::Storage { .. } => storage += 1,
                naga::AddressSpace::Uniform if variable.binding.is_some_and(|b| b.binding == 0) => {
                    assert_eq!(layouter[variable.ty].size, 256, "{}: Params", key.label());
                }
                _ => {}
            }
        }
        assert!(workgroup_bytes <= 16 << 10, "{}: {workgroup_bytes} bytes of workgroup memory", key.label());
        assert!(storage <= 8, "{}: {storage} storage buffers", key.label());
    }
}

/// `shaders/shared/params.wgsl` against `plan::Params`, field by field.
#[test]
fn params_have_the_fields_of_the_host_at_their_offsets() {
    use foredraft::plan::Params;
    use std::mem::offset_of;
    let host = [
        ("live_cols", offset_of!(Params, live_cols)),
        ("base", offset_of!(Params, base)),
        ("token_at", offset_of!(Params, token_at)),
        ("logit_first", offset_of!(Params, logit_first)),
        ("logit_cols", offset_of!(Params, logit_cols)),
        ("sample_at", offset_of!(Params, sample_at)),
        ("seed", offset_of!(Params, seed)),
        ("temperature", offset_of!(Params, temperature)),
        ("top_k", offset_of!(Params, top_k)),
        ("top_p", offset_of!(Params, top_p)),
        ("min_p", offset_of!(Params, min_p)),
        ("repeat_penalty", offset_of!(Params, repeat_penalty)),
        ("presence_penalty", offset_of!(Params, presence_penalty)),
        ("frequency_penalty", offset_of!(Params, frequency_penalty)),
        ("penalty_last_n", offset_of!(Params, penalty_last_n)),
        ("bias_count", offset_of!(Params, bias_count)),
        ("stats_at", offset_of!(Params, stats_at)),
        ("view_sink", offset_of!(Params, view_sink)),
        ("view_window", offset_of!(Params, view_window)),
        ("ancestors", offset_of!(Params, ancestors)),
        ("nodes", offset_of!(Params, nodes)),
    ];
    let module = naga::front::wgsl::parse_str(&KernelKey::RmsNorm(false).wgsl().expect("expands")).expect("parses");
    let members = module
        .types
        .iter()
        .find_map(|(_, kind)| match &kind.inner {
            naga::TypeInner::Struct { members, .. } if kind.name.as_deref() == Some("Params") => Some(members.clone()),
            _ => None,
        })
        .expect("struct Params");
    let shader: Vec<(String, usize)> =
        members.into_iter().map(|m| (m.name.unwrap_or_default(), m.offset as usize)).collect();
    let host: Vec<(String, usize)> = host.map(|(name, offset)| (name.to_owned(), offset)).to_vec();
    assert_eq!(shader, host);
}

/// What naga lets through and a browser may not: literals near the largest float, and features that must be enabled.
#[test]
fn texts_keep_to_what_browsers_accept() {
    for key in all_keys() {
        let text = key.wgsl().expect("expands");
        for wrong in ["e38", "enable ", "requires ", "subgroup", "ptr<storage", "#", "push_constant"] {
            let found = text.lines().find(|line| line.split("//").next().is_some_and(|code| code.contains(wrong)));
            assert_eq!(found, None, "{}: {wrong}", key.label());
        }
    }
}

#[test]
fn every_kernel_has_a_header_and_shape_comments() {
    for kernel in Kernel::ALL {
        let key = all_keys().into_iter().find(|key| key.kernel() == *kernel).expect("a permutation");
        let path = format!("{}/shaders/{}.wgsl", env!("CARGO_MANIFEST_DIR"), kernel.name());
        let source = std::fs::read_to_string(&path).expect("the kernel's file");
        assert!(source.starts_with("// "), "{path}: no header");
        assert!(source.contains("// Grid: "), "{path}: the header does not say the grid");
        let text = key.wgsl().expect("expands");
        let lines: Vec<&str> = text.lines().collect();
        for pair in lines.windows(2).filter(|pair| pair[1].contains("var<storage")) {
            assert!(pair[0].trim_start().starts_with("// ("), "{path}: no shape above {}", pair[1]);
        }
    }
}
