//! Pictures of what was measured: nanoseconds of a packet over its size, as SVG without a background, in colours that show on
//! white and on black.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use plotters::prelude::*;

use super::{CRATE, IPSEC_MB, OURS, SIZES, Wanted, roofline};

const INK: RGBColor = RGBColor(0x80, 0x86, 0x8e);
const SIZE: (u32, u32) = (760, 440);
const FONT: &str = "sans-serif";

/// Each contestant's sizes, and its nanoseconds.
type Lines = BTreeMap<&'static str, Vec<(f64, f64)>>;

/// What is drawn, by the kind of work.
#[derive(Default)]
pub struct Pictures(BTreeMap<&'static str, Lines>);

impl Pictures {
    /// Remembers a contestant's time, if it is of a picture.
    pub fn add(&mut self, wanted: Wanted, contestant: &'static str, size: usize, ns: f64) {
        let what = match wanted {
            Wanted::Seal => "seal",
            Wanted::Open => "open",
            Wanted::Peek => return,
        };
        self.0.entry(what).or_default().entry(contestant).or_default().push((size as f64, ns));
    }

    /// Writes `aead-seal.svg` and `aead-open.svg`; answers where.
    ///
    /// # Errors
    /// Where a file cannot be written.
    pub fn write(&self, folder: &Path, processor: &str) -> Result<Vec<PathBuf>, Box<dyn Error>> {
        std::fs::create_dir_all(folder)?;
        let mut written = Vec::new();
        for (what, lines) in &self.0 {
            let path = folder.join(format!("aead-{what}.svg"));
            let title = format!("AES-128-GCM, {what}: bursts of 32 packets, 32 SAs, one core");
            draw(&path, &title, processor, lines)?;
            written.push(path);
        }
        Ok(written)
    }
}

/// In the order of the legend.
fn colours() -> [(&'static str, &'static str, RGBColor); 4] {
    [
        (CRATE, "crate aes-gcm, packet by packet", RGBColor(0x9a, 0x6d, 0xd7)),
        (IPSEC_MB, "intel-ipsec-mb, direct API", RGBColor(0xe0, 0x6c, 0x2b)),
        (OURS, "Phalanx", RGBColor(0x2f, 0x81, 0xf7)),
        (roofline::NAME, "limit of the core: its instructions alone", RGBColor(0x3f, 0xa3, 0x4d)),
    ]
}

fn draw(path: &Path, title: &str, processor: &str, lines: &Lines) -> Result<(), Box<dyn Error>> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    let root = root.titled(title, (FONT, 22).into_font().color(&INK))?;
    let root = root.titled(processor, (FONT, 16).into_font().color(&INK))?;
    let times = || lines.values().flatten().map(|point| point.1);
    let (low, high) = (times().fold(f64::MAX, f64::min), times().fold(0.0, f64::max));
    // Whole powers of two, and as far as the sizes go.
    let (low, high) = (low.log2().floor().exp2(), high.log2().ceil().exp2());
    let (from, to) = (SIZES[0] as f64, SIZES[SIZES.len() - 1] as f64);
    let mut chart = ChartBuilder::on(&root)
        .margin_left(6)
        .margin_right(24)
        .margin_bottom(8)
        .x_label_area_size(44)
        .y_label_area_size(60)
        .build_cartesian_2d((from..to).log_scale().base(2.0), (low..high).log_scale().base(2.0))?;
    chart
        .configure_mesh()
        .x_desc("bytes of a packet")
        .y_desc("nanoseconds per packet")
        .axis_desc_style((FONT, 17).into_font().color(&INK))
        .label_style((FONT, 16).into_font().color(&INK))
        .axis_style(INK)
        .bold_line_style(INK.mix(0.35))
        .light_line_style(TRANSPARENT)
        .x_label_formatter(&|bytes| format!("{bytes:.0}"))
        .y_label_formatter(&|ns| format!("{ns:.0}"))
        .draw()?;
    for (contestant, label, colour) in colours() {
        let Some(points) = lines.get(contestant) else { continue };
        let line = chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(3)))?;
        line.label(label).legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], colour.stroke_width(3)));
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 4, colour.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .legend_area_size(30)
        .label_font((FONT, 17).into_font().color(&INK))
        .border_style(TRANSPARENT)
        .draw()?;
    root.present()?;
    Ok(())
}
