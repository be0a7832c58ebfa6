"""Pretrain on the Indian Pines scene without labels, score the features, and write a class map."""

import sys

import hsssl

out = sys.argv[1] if len(sys.argv) > 1 else "runs/indian_pines"
steps = int(sys.argv[2]) if len(sys.argv) > 2 else 1500

scene = hsssl.load_scene("indian_pines")
run = hsssl.pretrain([scene.cube], method="simclr", out=out, steps=steps, lr=4e-3, seed=0)
encoder = hsssl.load_encoder(run.path)
features = hsssl.embed(encoder, scene.cube)  # (145, 145, 640)

for split, per_class in (("random", 10), ("block", 100)):
    score = hsssl.evaluate(
        features,
        scene.labels,
        split=split,
        per_class=per_class,
        patch_size=encoder.spec.footprint,
        cube=hsssl.prepare(scene.cube),
    )
    print(score)
hsssl.classify(encoder, scene.cube, scene.labels, class_names=scene.class_names, out=f"{out}/map.tif")
