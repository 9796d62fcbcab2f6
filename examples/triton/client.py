"""Labels of an image from Triton Inference Server: python client.py IMAGE LABELS.png --url localhost:8001.

The server runs what `ffnet-export --input bgr --output labels --triton FOLDER` wrote; its gRPC port is asked.
"""

import argparse

import cv2
import tritonclient.grpc as triton


def main() -> None:
    """Send the image at the size the model takes, and write the label map at the image's own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image")
    parser.add_argument("labels")
    parser.add_argument("--url", default="localhost:8001")
    parser.add_argument("--model", default="ffnet_seg_nano_scenes")
    args = parser.parse_args()
    image = cv2.imread(args.image)
    if image is None:
        raise SystemExit(f"error: {args.image} cannot be read as an image")
    with triton.InferenceServerClient(args.url) as client:
        try:
            model = client.get_model_metadata(args.model)
            height, width = (int(side) for side in model.inputs[0].shape[1:3])
            request = triton.InferInput(model.inputs[0].name, [1, height, width, 3], "UINT8")
            request.set_data_from_numpy(cv2.resize(image, (width, height))[None])
            name = model.outputs[0].name
            labels = client.infer(args.model, [request]).as_numpy(name)[0]
        except triton.InferenceServerException as error:
            raise SystemExit(f"error: {args.url}: {error.message()}") from error
    full = cv2.resize(labels, image.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    if not cv2.imwrite(args.labels, full):
        raise SystemExit(f"error: {args.labels} cannot be written")


if __name__ == "__main__":
    main()
