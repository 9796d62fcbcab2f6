// From an image to its label map with ONNX Runtime's C++ API and OpenCV, and nothing of this toolkit.
//
//   labels NET.onnx IMAGE LABELS.png             write the class of each pixel
//   labels NET.onnx --self-test IMAGE LABELS.png compare with a label map that is known to be right; 0 when it is equal
//
// NET.onnx: exported with --input bgr at a fixed --shape, so that the graph takes images as OpenCV decodes them.
#include <onnxruntime_cxx_api.h>

#include <iostream>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>
#include <stdexcept>
#include <string>
#include <vector>

// Labels of a BGR image at its own size: the logits of each class, enlarged as the protocol does, then the best class.
cv::Mat predict(Ort::Session& session, const cv::Mat& image) {
    auto shape = session.GetInputTypeInfo(0).GetTensorTypeAndShapeInfo().GetShape();  // batch, height, width, channels
    if (shape.size() != 4 || shape[0] != 1 || shape[1] < 1 || shape[2] < 1 || shape[3] != 3)
        throw std::runtime_error("the graph must take one BGR image of a fixed size: export it with --input bgr --shape");
    const cv::Size seen{int(shape[2]), int(shape[1])};
    cv::Mat pixels;
    cv::resize(image, pixels, seen, 0, 0, cv::INTER_LINEAR);

    Ort::AllocatorWithDefaultOptions allocator;
    const auto input_name = session.GetInputNameAllocated(0, allocator);
    const auto output_name = session.GetOutputNameAllocated(0, allocator);
    const char* inputs[] = {input_name.get()};
    const char* outputs[] = {output_name.get()};
    const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
    auto tensor = Ort::Value::CreateTensor<uint8_t>(memory, pixels.data, pixels.total() * 3, shape.data(), shape.size());
    auto result = session.Run(Ort::RunOptions{}, inputs, &tensor, 1, outputs, 1);

    const auto sizes = result[0].GetTensorTypeAndShapeInfo().GetShape();  // batch, classes, height, width
    if (sizes.size() != 4) throw std::runtime_error("the graph must give logits: export it with --output logits");
    const int classes = int(sizes[1]), height = int(sizes[2]), width = int(sizes[3]);
    float* logits = result[0].GetTensorMutableData<float>();

    cv::Mat best, labels(image.size(), CV_8U, cv::Scalar(0));
    for (int label = 0; label < classes; ++label) {
        const cv::Mat low(height, width, CV_32F, logits + size_t(label) * height * width);
        cv::Mat scores;
        cv::resize(low, scores, seen, 0, 0, cv::INTER_LINEAR);
        if (seen != image.size()) cv::resize(scores.clone(), scores, image.size(), 0, 0, cv::INTER_LINEAR);
        if (label == 0) {
            best = scores;
            continue;
        }
        const cv::Mat better = scores > best;
        scores.copyTo(best, better);
        labels.setTo(label, better);
    }
    return labels;
}

cv::Mat read(const std::string& path, cv::ImreadModes mode) {
    cv::Mat image = cv::imread(path, mode);
    if (image.empty()) throw std::runtime_error(path + " cannot be read as an image");
    return image;
}

int main(int count, char** words) try {
    const std::vector<std::string> given(words + 1, words + count);
    const bool testing = given.size() == 4 && given[1] == "--self-test";
    if (given.size() != 3 && !testing) {
        std::cerr << "usage: labels NET.onnx [--self-test] IMAGE LABELS.png\n";
        return 2;
    }
    const std::string &picture = given[given.size() - 2], &file = given.back();
    Ort::Env environment(ORT_LOGGING_LEVEL_WARNING, "labels");
    Ort::Session session(environment, given[0].c_str(), Ort::SessionOptions{});
    const cv::Mat labels = predict(session, read(picture, cv::IMREAD_COLOR));
    if (!testing) {
        if (!cv::imwrite(file, labels)) throw std::runtime_error(file + " cannot be written");
        return 0;
    }
    const cv::Mat expected = read(file, cv::IMREAD_UNCHANGED);
    if (expected.type() != CV_8U || expected.size() != labels.size())
        throw std::runtime_error(file + " is no label map of " + picture);
    const int different = cv::countNonZero(labels != expected);
    std::cout << different << " of " << labels.total() << " pixels differ\n";
    return different == 0 ? 0 : 1;
} catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << "\n";
    return 1;
}
