//! What is generated stands in the tree as the types say it.

use diptych_api::generate;

#[test]
fn crds_and_reference_have_not_drifted_from_the_types() {
    let root = std::path::Path::new("..");
    for file in generate::all().expect("every type makes a definition") {
        let found = std::fs::read_to_string(root.join(&file.path)).unwrap_or_default();
        assert!(
            found == file.text,
            "{} has drifted: cargo run -p diptych-api --bin diptych-crds .",
            file.path
        );
    }
}

#[test]
fn every_field_is_documented() {
    fn undocumented(path: &str, schema: &serde_json::Value, found: &mut Vec<String>) {
        for (name, child) in schema["properties"].as_object().into_iter().flatten() {
            let path = format!("{path}.{name}");
            if child["description"].as_str().unwrap_or_default().is_empty() {
                found.push(path.clone());
            }
            undocumented(&path, child, found);
            undocumented(&format!("{path}[]"), &child["items"], found);
        }
    }
    let mut found = Vec::new();
    for definition in generate::definitions() {
        let json = serde_json::to_value(&definition).expect("JSON");
        let schema = &json["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        for part in ["spec", "status"] {
            let name = format!("{}.{part}", definition.spec.names.kind);
            undocumented(&name, &schema["properties"][part], &mut found);
        }
    }
    assert!(found.is_empty(), "without a description: {found:#?}");
}
