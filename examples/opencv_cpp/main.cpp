// Labels images with a bundle in OpenCV DNN: classify BUNDLE IMAGE...
// Prints a line for each image: the file, then the three most probable labels, each with its score.

#include <fstream>
#include <iomanip>
#include <iostream>
#include <numeric>
#include <regex>
#include <sstream>
#include <stdexcept>
#include <string>

#include <opencv2/dnn.hpp>
#include <opencv2/imgcodecs.hpp>
#include <opencv2/imgproc.hpp>

#include "fit.hpp"

struct Bundle {
    cv::dnn::Net net;
    std::vector<std::string> labels;
    cv::Size size;
    poolzoo::Filter filter;
    double kept;
    bool floats;  // whether the graph takes float32[1, 3, h, w] in 0-1; else uint8[1, h, w, 3]
};

Bundle open(const std::string& folder) {
    std::ifstream file(folder + "/config.json");
    if (!file) throw std::runtime_error(folder + " is no bundle: it has no config.json");
    std::stringstream text;
    text << file.rdbuf();
    // OpenCV's reader of JSON knows no null.
    const std::string known = std::regex_replace(text.str(), std::regex(R"((:|\[|,)(\s*)null\b)"), "$1$2\"\"");
    cv::FileStorage config(known, cv::FileStorage::READ | cv::FileStorage::MEMORY | cv::FileStorage::FORMAT_JSON);
    Bundle bundle;
    for (const auto& label : config["label_names"]) bundle.labels.push_back(label.string());
    const cv::FileNode seen = config["pretrained_cfg"];
    const cv::FileNode size = config["poolzoo"]["data_size"];  // the graph resizes further where the network sees more
    bundle.size = cv::Size(int(size[1]), int(size[0]));
    const bool bicubic = seen["interpolation"].string() == "bicubic";
    bundle.filter = bicubic ? poolzoo::Filter{2, poolzoo::bicubic} : poolzoo::Filter{1, poolzoo::bilinear};
    bundle.kept = double(seen["crop_pct"]);
    bundle.floats = config["export"]["input"].string() == "float";
    bundle.net = cv::dnn::readNetFromONNX(folder + "/model.onnx");
    return bundle;
}

// A file as RGB: turned by its EXIF orientation, alpha on white.
cv::Mat read(const std::string& file) {
    cv::Mat image = cv::imread(file, cv::IMREAD_UNCHANGED);  // keeps alpha; reads no orientation
    if (image.empty()) throw std::runtime_error(file + " cannot be read");
    if (image.depth() != CV_8U) throw std::runtime_error(file + " has more than eight bits; this example reads eight");
    if (image.channels() == 4) {
        for (auto pixel = image.begin<cv::Vec4b>(); pixel != image.end<cv::Vec4b>(); ++pixel) {
            const int alpha = (*pixel)[3];
            for (int c = 0; c < 3; c++) (*pixel)[c] = uint8_t(((*pixel)[c] * alpha + 255 * (255 - alpha) + 127) / 255);
        }
        cv::cvtColor(image, image, cv::COLOR_BGRA2RGB);
        return image;
    }
    image = cv::imread(file, cv::IMREAD_COLOR);
    cv::cvtColor(image, image, cv::COLOR_BGR2RGB);
    return image;
}

std::vector<float> probabilities(Bundle& bundle, const cv::Mat& image) {
    const int height = image.rows, width = image.cols;
    if (bundle.floats) {
        bundle.net.setInput(cv::dnn::blobFromImage(image, 1 / 255.0));
    } else {
        const int sides[] = {1, height, width, 3};
        bundle.net.setInput(cv::Mat(4, sides, CV_8U, image.data));
    }
    const cv::Mat found = bundle.net.forward("probabilities");
    return std::vector<float>(found.ptr<float>(), found.ptr<float>() + found.total());
}

int main(int count, char** arguments) try {
    if (count < 3) throw std::runtime_error("usage: classify BUNDLE IMAGE...");
    Bundle bundle = open(arguments[1]);
    std::cout << std::fixed << std::setprecision(6);
    for (int index = 2; index < count; index++) {
        const cv::Mat image = poolzoo::fit(read(arguments[index]), bundle.size, bundle.filter, bundle.kept).clone();
        const std::vector<float> scores = probabilities(bundle, image);
        std::vector<int> order(scores.size());
        std::iota(order.begin(), order.end(), 0);
        std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return scores[a] > scores[b]; });
        std::cout << arguments[index];
        for (size_t place = 0; place < std::min<size_t>(3, order.size()); place++) {
            std::cout << '\t' << bundle.labels.at(order[place]) << '\t' << scores[order[place]];
        }
        std::cout << '\n';
    }
    return 0;
} catch (const std::exception& error) {
    std::cerr << "error: " << error.what() << '\n';
    return 1;
}
