"""A whole table scored in one request, as Arrow: pip install pandas pyarrow requests

Prints how many loans were asked, the first rows with the model's answers beside them, and the share of loans that it
decides rightly:

    400 loans, 400 answers by car-loan version 1
       car_value  loan_length salary_range  probability  label
    0    12638.0         21.0    0 - 20K €     0.772513      1
    ...
    92 % as the data say
"""

import io
import sys

import pandas
import pyarrow
import requests

server = sys.argv[1] if len(sys.argv) > 1 else "http://localhost:8000"
ARROW = "application/vnd.apache.arrow.stream"

loans = pandas.read_csv("models/car-loan/samples.csv", dtype={"repaid_loan_on_prev_car": str})
table = pyarrow.Table.from_pandas(loans.drop(columns="repaid"), preserve_index=False)
body = io.BytesIO()
with pyarrow.ipc.new_stream(body, table.schema) as stream:
    stream.write_table(table)

answer = requests.post(
    f"{server}/v2/models/car-loan/predict",
    data=body.getvalue(),
    headers={"Content-Type": ARROW, "Accept": ARROW},
)
if answer.status_code != 200:
    sys.exit(answer.json()["error"])
answers = pyarrow.ipc.open_stream(answer.content).read_pandas()

version = answer.headers["tidegate-model-version"]
print(f"{len(loans)} loans, {len(answers)} answers by car-loan version {version}")
shown = loans[["car_value", "loan_length", "salary_range"]].join(answers)
print(shown.head(3).to_string())
print(f"{(answers['label'] == loans['repaid']).mean():.0%} as the data say".replace("%", " %"))
