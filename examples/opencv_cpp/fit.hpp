// From a decoded image to the pixels that the network was trained on: the resize and crop of Pillow's ImageOps.fit.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <utility>
#include <vector>

#include <opencv2/core.hpp>

namespace poolzoo {

struct Filter {
    double support;
    double (*weight)(double);
};

inline double bilinear(double x) { return std::max(0.0, 1 - std::abs(x)); }

inline double bicubic(double x) {
    const double a = -0.5;
    x = std::abs(x);
    if (x < 1) return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

// Resizes the columns of an image, CV_8UC3, that lie from `start` to `end`. An antialiasing filter becomes as wide as
// the pixels of the result; its weights are integers with 22 bits of fraction, as in Pillow.
inline cv::Mat resize_columns(const cv::Mat& image, float start, float end, int wanted, const Filter& filter) {
    if (image.cols == wanted && start == 0 && end == float(wanted)) return image;
    const int bits = 22;
    const double scale = double(end - start) / wanted, stretch = std::max(scale, 1.0);
    const double reach = filter.support * stretch;
    cv::Mat result(image.rows, wanted, CV_8UC3);
    for (int place = 0; place < wanted; place++) {
        const double center = start + (place + 0.5) * scale;
        const int first = std::max(0, int(center - reach + 0.5));
        const int last = std::min(image.cols, int(center + reach + 0.5));
        std::vector<double> shares;
        double sum = 0;
        for (int x = first; x < last; x++) {
            shares.push_back(filter.weight((x - center + 0.5) * (1 / stretch)));
            sum += shares.back();
        }
        std::vector<int> weights;
        for (double share : shares) {
            if (sum != 0) share /= sum;
            weights.push_back(int(share * (1 << bits) + (share < 0 ? -0.5 : 0.5)));
        }
        for (int row = 0; row < image.rows; row++) {
            const cv::Vec3b* from = image.ptr<cv::Vec3b>(row) + first;
            for (int channel = 0; channel < 3; channel++) {
                int value = 1 << (bits - 1);
                for (size_t x = 0; x < weights.size(); x++) value += from[x][channel] * weights[x];
                result.at<cv::Vec3b>(row, place)[channel] = cv::saturate_cast<uint8_t>(value >> bits);
            }
        }
    }
    return result;
}

inline cv::Mat resize_rows(const cv::Mat& image, float start, float end, int wanted, const Filter& filter) {
    return resize_columns(image.t(), start, end, wanted, filter).t();
}

// An image, CV_8UC3, at the network's size: as it is, or its shorter side resized and its center cropped. `kept` is
// the part of the shorter side that the crop keeps.
inline cv::Mat fit(const cv::Mat& image, cv::Size size, const Filter& filter, double kept) {
    if (image.size() == size) return image;
    const double bleed = (1 - kept) / 2, left = bleed * image.cols, top = bleed * image.rows;
    const double live_width = image.cols - 2 * left, live_height = image.rows - 2 * top;
    const double wanted = double(size.width) / size.height;
    double width = live_width, height = live_height;
    if (live_width / live_height > wanted) width = wanted * live_height;
    if (live_width / live_height < wanted) height = live_width / wanted;
    const double x = left + (live_width - width) * 0.5, y = top + (live_height - height) * 0.5;
    const float box[] = {float(x), float(y), float(x + width), float(y + height)};
    const int shrinks = image.rows - size.height;
    if (shrinks > 0 && shrinks > 2 * (image.cols - size.width)) {  // Pillow 13 then starts with the rows
        const cv::Mat rows = resize_rows(image, box[1], box[3], size.height, filter);
        return resize_columns(rows, box[0], box[2], size.width, filter);
    }
    const cv::Mat columns = resize_columns(image, box[0], box[2], size.width, filter);
    return resize_rows(columns, box[1], box[3], size.height, filter);
}

}  // namespace poolzoo
