import numpy as np, time
def test_fx(tiny_onnx, tiny_run, geotiff_dataset):
    import shutil
    shutil.rmtree("/tmp/h/tiny", ignore_errors=True)
    shutil.copytree(tiny_run, "/tmp/h/tiny"); shutil.copy(tiny_onnx, "/tmp/h/tiny.onnx"); 
    shutil.rmtree("/tmp/h/gt", ignore_errors=True)
    shutil.copytree(geotiff_dataset, "/tmp/h/gt")
    from cloudnet import load_model, open_dataset
    m = load_model(tiny_onnx); print(m.spec)
    for s in open_dataset([geotiff_dataset]).scenes:
        with s.open() as sc: r, v = sc.read()
        p = m.predict(r, v); print(p.min(), p.max(), (p>.5).mean(), (s.read_mask()==1).mean())
